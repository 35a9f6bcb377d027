// Few tokens with AVX2 and activations of 8 bits: whole-number products of bytes; how rows are read is that of avx2_few.hpp.

/// Sums of four neighbouring products of unsigned and signed bytes; exact where |a b| summed over two neighbours is below 2^15.
[[gnu::always_inline]] inline __m256i dot_bytes(__m256i a, __m256i b) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
}

/// The largest magnitude of a chunk in all lanes; infinite or NaN if any element is (without the sign bit, floats order as integers do).
[[gnu::always_inline]] inline __m256 largest_magnitude(const __m256 (&x)[4]) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  LOWRANK_UNROLL
  for (int k = 0; k < 4; ++k) largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(x[k]), magnitude));
  largest = _mm256_max_epi32(largest, _mm256_permute2x128_si256(largest, largest, 1));
  largest = _mm256_max_epi32(largest, _mm256_shuffle_epi32(largest, 0x4e));
  return _mm256_castsi256_ps(_mm256_max_epi32(largest, _mm256_shuffle_epi32(largest, 0xb1)));
}

/// A chunk smaller than 127 / FLT_MAX becomes zeros; one with an element that is not finite gets a scale that is not.
inline void to_int8(const float* from, Index chunks, std::int8_t* q, float* scale, float* sum) {
  for (Index c = 0; c < chunks; ++c) {
    __m256 x[4];
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) x[k] = _mm256_loadu_ps(from + 32 * c + 8 * k);
    const float largest = _mm256_cvtss_f32(largest_magnitude(x));
    const __m256 inverse = _mm256_set1_ps(largest > 4e-37f ? 127.0f / largest : 0.0f);
    __m256i whole[4];
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) whole[k] = _mm256_cvtps_epi32(_mm256_mul_ps(x[k], inverse));
    const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    const __m256i in_order = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m256i bytes = _mm256_max_epi8(in_order, _mm256_set1_epi8(-127));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + 32 * c), bytes);
    scale[c] = largest / 127.0f;
    sum[c] = scale[c] * sum_of(Floats{_mm256_cvtepi32_ps(dot_bytes(_mm256_set1_epi8(1), bytes))});
  }
}

/// A chunk's entries of the table in 8 bits, as its activations lie.
template <Layout L>
[[gnu::always_inline]] inline __m256i load_bytes(const std::byte* at, Index chunk, __m256i table) {
  const __m256i nibble = _mm256_set1_epi8(15);
  if constexpr (L == Layout::pairs || L == Layout::halves) {
    const __m256i shifts = L == Layout::pairs ? _mm256_setr_epi32(4, 4, 4, 4, 0, 0, 0, 0) : _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    return _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srlv_epi32(load_16_twice(at), shifts), nibble));
  } else {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    if constexpr (L == Layout::bytes) return bytes;
    return _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srl_epi32(bytes, _mm_cvtsi32_si128(chunk % 2 == 0 ? 0 : 4)), nibble));
  }
}

/// Chunks [begin, end) of the depth, and the activations there: the chunks of all tokens side by side.
struct ByteStrip {
  alignas(64) std::int8_t q[256 * 32];
  float scale[256];
  float sum[256];  ///< times 1 / (8 unit)
  Index begin, end = 0;

  /// Copies chunks of Tokens tokens from begin on; 10 KiB stay in the first-level cache from row to row.
  template <int Tokens>
  void load(const FewTokens& p, Index from, float unit) {
    begin = from;
    end = p.chunks - begin < 256 / Tokens ? p.chunks : begin + 256 / Tokens;
    for (Index i = 0; i < (end - begin) * Tokens; ++i) {
      const Index at = i % Tokens * p.chunks + begin + i / Tokens;
      std::memcpy(q + 32 * i, p.q + 32 * at, 32);
      scale[i] = p.q_scale[at];
      sum[i] = p.q_sum[at] * (0.125f / unit);
    }
  }
};

/// Chunk c of all rows, with its activations at the strip's position `at`: sum[r][t] += scale d (Σ u q) + offset / (8 unit) · (Σ d q).
///
/// u q is |u| times q with the sign of u: |u| ≤ 128 and |q| ≤ 127, so that two products fit in 16 bits.
template <Layout L, Scaling M, int Rows, int Tokens>
[[gnu::always_inline]] inline void add_byte_chunk(const RowGroup<L, M, Rows>& rows, Index c, __m256i table, const ByteStrip& strip,
                                                  Index at, Floats (&sum)[Rows][Tokens]) {
  const Index place = rows.place_of(c);
  if constexpr (Tokens == 1) rows.prefetch(place);
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    const __m256i u = load_bytes<L>(rows.codes[r] + place, c, table), magnitude = _mm256_abs_epi8(u);
    const Pair pair = load_pair(rows, r, c, place);
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) {
      const __m256i q = _mm256_load_si256(reinterpret_cast<const __m256i*>(strip.q + (at + t) * 32));
      const __m256 dot = _mm256_cvtepi32_ps(dot_bytes(magnitude, _mm256_sign_epi8(q, u)));
      sum[r][t] = fma({dot}, scale_of(pair) * Floats::all(strip.scale[at + t]), sum[r][t]);
      if constexpr (few::has_offset(M)) sum[r][t] = fma(offset_of(pair), Floats::all(strip.sum[at + t]), sum[r][t]);
    }
  }
}

/// With w = scale · unit · u + offset and x = d q, Σ w x = unit · (Σ scale d (Σ u q) + Σ offset / unit · (Σ d q)); the eight lanes of a
/// sum add up in the end, so each takes an eighth of the offset's part.
template <Layout L, Scaling M, int Rows, int Tokens>
void few_rows_int8(const FewTokens& p, const ByteStrip& strip, const BlockReader<few::SignedTable>& reader, Index group) {
  RowGroup<L, M, Rows> rows(reader.rows, p, group);
  const __m256i table = load_16_twice(reader.codes.entry);
  Floats sum[Rows][Tokens];
  clear(sum);
  Index at = 0;
  for (Index begin = strip.begin; begin < strip.end; begin += rows.window()) {
    rows.read_ahead(begin, strip.end);
    const Index end = strip.end - begin < rows.window() ? strip.end : begin + rows.window();
    for (Index c = begin; c < end; ++c, at += Tokens) {
      add_byte_chunk(rows, c, table, strip, at, sum);
    }
  }
  store_all(p, group, sum, reader.codes.unit);
}

template <int Rows, int Tokens>
void all_rows_int8(const FewTokens& p, void (*few)(const FewTokens&, const ByteStrip&, const BlockReader<few::SignedTable>&, Index)) {
  const BlockReader<few::SignedTable> reader{few::BlockRows(p), few::SignedTable(p.weight->blocks())};
  const few::SideBySide<Rows> sides(p);
  const Index groups = sides.groups();
  for (Index phase = 0; phase < p.phases; ++phase) {
    FewTokens part = sides.tokens_of(phase);
    ByteStrip strip;
    while (strip.end < part.chunks) {
      strip.load<Tokens>(part, strip.end, reader.codes.unit);
      for (Index group = phase; group < groups; group += p.phases) few(part, strip, reader, group);
      part.accumulate = true;
    }
  }
}

template <Layout L, Scaling M>
void few_blocks_int8(const FewTokens& p) {
  if (p.tokens == 1) return all_rows_int8<4, 1>(p, few_rows_int8<L, M, 4, 1>);
  if (p.tokens <= 4) return all_rows_int8<2, 4>(p, few_rows_int8<L, M, 2, 4>);
  all_rows_int8<1, 8>(p, few_rows_int8<L, M, 1, 8>);
}

/// Dense parts, such as an adapter's, stay in float.
inline void few_tokens_int8(const FewTokens& p) {
  const Scaling scaling = few::scaling_of(p.weight->blocks());
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return few_blocks_int8<Layout::pairs, Scaling::floats>(p);
    case Layout::halves:
      if (scaling == Scaling::half) return few_blocks_int8<Layout::halves, Scaling::half>(p);
      if (scaling == Scaling::half_offset) return few_blocks_int8<Layout::halves, Scaling::half_offset>(p);
      return few_blocks_int8<Layout::halves, Scaling::floats_offset>(p);
    case Layout::long_halves:
      return few_blocks_int8<Layout::long_halves, Scaling::floats_offset>(p);
    case Layout::bytes:
      return few_blocks_int8<Layout::bytes, Scaling::half>(p);
    default:
      return few_tokens(p);
  }
}
