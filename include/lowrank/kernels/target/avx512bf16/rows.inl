// Rows of bfloat16 times a few columns with vdpbf16ps: the loops RowLoops of elementwise.hpp, columns and weights rounded to bfloat16. An
// instruction multiplies 32 pairs that lie as they are stored; for weighted sums two rows are interleaved first.

/// Columns side by side, numbers of one that fit the stack, and rows whose weights do; longer columns go through floats.
inline constexpr Index row_columns = 4, longest_row = 512, weighted_rows = 256;

/// x [columns][n], rounded, each column in `length` numbers with zeros behind.
inline void round_columns(const float* x, Index stride, Index width, Index n, std::uint16_t* out, Index length) {
  for (Index c = 0; c < width; ++c) {
    for (Index i = 0; i < length; i += 32) {
      const __m512 low = _mm512_maskz_loadu_ps(first_lanes(std::max<Index>(n - i, 0)), x + c * stride + i);
      const __m512 high = _mm512_maskz_loadu_ps(first_lanes(std::max<Index>(n - i - 16, 0)), x + c * stride + i + 16);
      _mm512_storeu_si512(out + c * length + i, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
    }
  }
}
inline __mmask32 first_words(Index count) { return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1u; }
inline __m512i load_words(const void* from, Index left) { return _mm512_maskz_loadu_epi16(first_words(left), from); }
inline __m512 add_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

/// The sums of four vectors.
inline __m128 sums_of_four(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/// Four rows at a time; where fewer are left the last one stands in for the missing.
template <Index Columns>
void dots_beside(const BFloat16* rows, Index stride, Index count, const std::uint16_t* x, Index length, Index n, float* out,
                 Index out_stride) {
  for (Index j = 0; j < count; j += 4) {
    const BFloat16* row[4];
    LOWRANK_UNROLL
    for (Index r = 0; r < 4; ++r) row[r] = rows + std::min(j + r, count - 1) * stride;
    __m512 sum[Columns][4];
    LOWRANK_UNROLL
    for (Index c = 0; c < Columns; ++c) {
      LOWRANK_UNROLL
      for (Index r = 0; r < 4; ++r) sum[c][r] = _mm512_setzero_ps();
    }
    for (Index i = 0; i < n; i += 32) {
      __m512i four[4];
      LOWRANK_UNROLL
      for (Index r = 0; r < 4; ++r) four[r] = load_words(row[r] + i, n - i);
      LOWRANK_UNROLL
      for (Index c = 0; c < Columns; ++c) {
        const __m512i column = _mm512_loadu_si512(x + c * length + i);
        LOWRANK_UNROLL
        for (Index r = 0; r < 4; ++r) sum[c][r] = add_pairs(sum[c][r], four[r], column);
      }
    }
    LOWRANK_UNROLL
    for (Index c = 0; c < Columns; ++c)
      _mm_mask_storeu_ps(out + c * out_stride + j, static_cast<__mmask8>(first_lanes(std::min<Index>(count - j, 4))),
                         sums_of_four(sum[c][0], sum[c][1], sum[c][2], sum[c][3]));
  }
}
inline void dots_of_columns(const BFloat16* rows, Index stride, Index count, const float* x, Index all, Index n, float* out,
                            Index out_stride) {
  if (n > longest_row) return avx512::dots_of_columns(rows, stride, count, x, all, n, out, out_stride);
  alignas(64) std::uint16_t rounded[row_columns * longest_row];
  const Index length = round_up(n, 32);
  for (Index turns = ceil_div(all, row_columns); turns > 0; --turns) {
    const Index width = ceil_div(all, turns);
    const auto run = width == 1 ? dots_beside<1> : width == 2 ? dots_beside<2> : width == 3 ? dots_beside<3> : dots_beside<4>;
    round_columns(x, n, width, n, rounded, length);
    run(rows, stride, count, rounded, length, n, out, out_stride);
    all -= width, x += width * n, out += width * out_stride;
  }
}

/// y [n] += the sums of a vector's 32 numbers: low holds those of each lane's first four words, high of the other four.
inline void add_interleaved(__m512 low, __m512 high, Index n, float* y) {
  const __m512 even = _mm512_shuffle_f32x4(low, high, 0x44), odd = _mm512_shuffle_f32x4(low, high, 0xEE);
  const __mmask16 first = first_lanes(n), second = first_lanes(std::max<Index>(n - 16, 0));
  const __m512 a = _mm512_shuffle_f32x4(even, even, 0xD8), b = _mm512_shuffle_f32x4(odd, odd, 0xD8);
  _mm512_mask_storeu_ps(y, first, _mm512_add_ps(_mm512_maskz_loadu_ps(first, y), a));
  _mm512_mask_storeu_ps(y + 16, second, _mm512_add_ps(_mm512_maskz_loadu_ps(second, y + 16), b));
}
/// 32 Vectors numbers of the rows, two rows at a time; `weights` has a zero behind an odd number of them.
template <Index Vectors, Index Columns>
void add_weighted_vectors(const BFloat16* rows, Index stride, Index count, const std::uint16_t* weights, Index n, float* y,
                          Index y_stride) {
  __m512 low[Columns][Vectors], high[Columns][Vectors];
  LOWRANK_UNROLL
  for (Index c = 0; c < Columns; ++c) {
    LOWRANK_UNROLL
    for (Index v = 0; v < Vectors; ++v) low[c][v] = high[c][v] = _mm512_setzero_ps();
  }
  for (Index j = 0; j < count; j += 2) {
    const BFloat16 *const upper = rows + j * stride, *const lower = j + 1 < count ? upper + stride : upper;
    __m512i weight[Columns];
    LOWRANK_UNROLL
    for (Index c = 0; c < Columns; ++c) {
      int pair;
      std::memcpy(&pair, weights + c * weighted_rows + j, sizeof pair);
      weight[c] = _mm512_set1_epi32(pair);
    }
    LOWRANK_UNROLL
    for (Index v = 0; v < Vectors; ++v) {
      const __m512i a = load_words(upper + 32 * v, n - 32 * v), b = load_words(lower + 32 * v, n - 32 * v);
      const __m512i first = _mm512_unpacklo_epi16(a, b), second = _mm512_unpackhi_epi16(a, b);
      LOWRANK_UNROLL
      for (Index c = 0; c < Columns; ++c) {
        low[c][v] = add_pairs(low[c][v], first, weight[c]);
        high[c][v] = add_pairs(high[c][v], second, weight[c]);
      }
    }
  }
  LOWRANK_UNROLL
  for (Index c = 0; c < Columns; ++c) {
    LOWRANK_UNROLL
    for (Index v = 0; v < Vectors; ++v) add_interleaved(low[c][v], high[c][v], n - 32 * v, y + c * y_stride + 32 * v);
  }
}
template <Index Columns>
void add_weighted_beside(const BFloat16* rows, Index stride, Index count, const std::uint16_t* weights, Index n, float* y, Index y_stride) {
  Index i = 0;
  for (; n - i > 32; i += 64) add_weighted_vectors<2, Columns>(rows + i, stride, count, weights, n - i, y + i, y_stride);
  if (i < n) add_weighted_vectors<1, Columns>(rows + i, stride, count, weights, n - i, y + i, y_stride);
}
inline void add_weighted_rows_to_columns(const BFloat16* rows, Index stride, Index count, const float* weights, Index weight_stride,
                                         Index all, Index n, float* y) {
  alignas(64) std::uint16_t rounded[row_columns * weighted_rows];
  for (Index turns = ceil_div(all, row_columns); turns > 0; --turns) {
    const Index width = ceil_div(all, turns);
    const auto run = width == 1   ? add_weighted_beside<1>
                     : width == 2 ? add_weighted_beside<2>
                     : width == 3 ? add_weighted_beside<3>
                                  : add_weighted_beside<4>;
    for (Index j = 0; j < count; j += weighted_rows) {
      const Index some = std::min(weighted_rows, count - j);
      round_columns(weights + j, weight_stride, width, some, rounded, weighted_rows);
      run(rows + j * stride, stride, some, rounded, n, y, n);
    }
    all -= width, weights += width * weight_stride, y += width * n;
  }
}
