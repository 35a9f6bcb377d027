// Dense rows of a few chunks, such as those of a low-rank factor B, times one token: with 4 rows side by side most of the time would go
// into adding across lanes, so 16 rows are added together. Sums and their order are those of dense_rows.

inline constexpr Index longest_short_row = 128;

/// Two vectors into one, added across: halves to a's 8 sums and then b's; quarters, which every other one belongs to; neighbours within
/// each quarter.
[[gnu::always_inline]] inline __m512 add_halves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}
[[gnu::always_inline]] inline __m512 add_quarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}
[[gnu::always_inline]] inline __m512 add_neighbours(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
}

/// The sums of 16 vectors, each in the order of four_sums.
[[gnu::always_inline]] inline __m512 sums_of_16(const __m512 (&sum)[16]) {
  __m512 v[8], w[2];
  LOWRANK_UNROLL
  for (int i = 0; i < 8; ++i) v[i] = add_halves(sum[2 * i], sum[2 * i + 1]);
  LOWRANK_UNROLL
  for (int i = 0; i < 2; ++i) w[i] = add_neighbours(add_neighbours(v[4 * i], v[4 * i + 1]), add_neighbours(v[4 * i + 2], v[4 * i + 3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  return _mm512_permutexvar_ps(order, add_quarters(w[0], w[1]));
}

/// 16 elements, or the first `count`.
template <Layout L>
[[gnu::always_inline]] inline __m512 dense_16(const std::byte* at, __mmask16 mask) {
  if constexpr (L == Layout::fp32)
    return _mm512_maskz_loadu_ps(mask, at);
  else
    return widened<L>(_mm256_maskz_loadu_epi16(mask, at)).v;
}

template <Layout L>
[[gnu::always_inline]] inline void sixteen_short_rows(const FewTokens& p, const std::byte* at, Index pitch, Index group) {
  const Index length = p.weight->cols(), last = p.rows - 1 - group * 16;
  __m512 sum[16];
  LOWRANK_UNROLL
  for (int r = 0; r < 16; ++r) sum[r] = _mm512_setzero_ps();
  for (Index k = 0; k < length; k += 16) {
    const __m512 x = _mm512_loadu_ps(p.x + k);
    const __mmask16 mask = first_lanes(length - k);
    LOWRANK_UNROLL
    for (int r = 0; r < 16; ++r)
      sum[r] = _mm512_fmadd_ps(dense_16<L>(at + (r < last ? r : last) * pitch + k * few::element_bytes(L), mask), x, sum[r]);
  }
  const __mmask16 stored = first_lanes(last + 1);
  float* const y = p.y + group * 16;
  __m512 result = _mm512_mul_ps(_mm512_set1_ps(p.factor), sums_of_16(sum));
  __asm__("" : "+v"(result));  // no multiply-add: every build rounds alike
  if (p.accumulate) result = _mm512_add_ps(_mm512_maskz_loadu_ps(stored, y), result);
  _mm512_mask_storeu_ps(y, stored, result);
}

template <Layout L>
void short_rows(const FewTokens& p) {
  const Index pitch = p.weight->stride() * few::element_bytes(L);
  const auto* at = static_cast<const std::byte*>(p.weight->data()) + p.row * pitch;
  for (Index group = 0; 16 * group < p.rows; ++group) sixteen_short_rows<L>(p, at + 16 * group * pitch, pitch, group);
}

template <Layout L>
void dense_tokens(const FewTokens& p) {
  if (p.tokens == 1 && p.weight->cols() <= longest_short_row) return short_rows<L>(p);
  few_dense<L>(p);
}
