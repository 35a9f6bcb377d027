// AVX-512 with BF16: a word holds two neighbours of the depth, and vdpbf16ps multiplies both and adds them to a float sum.

using namespace avx512::simd;
using avx512::columns, avx512::lanes, avx512::tile_columns, avx512::vectors;

/// Lanes of 8: words of 8 rows, transposed as words.
inline void pack_8_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (Index k = 0; k < depth; k += 16) {
    const Index length = depth - k < 16 ? depth - k : 16;
    __m256i rows[8];
    LOWRANK_UNROLL
    for (Index i = 0; i < 8; ++i) {
      const float* row = from + (i < count ? i : 0) * stride + k;  // a missing lane repeats lane 0
      const __m512 numbers = _mm512_maskz_loadu_ps(first_lanes(length), row);
      rows[i] = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(numbers, factor));
    }
    avx2::transpose(rows);
    avx2::store_words(rows, (length + 1) / 2, 8, panel + k / 2 * step, step);
  }
}

inline void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  pack_8_rows(from, stride, count, depth, scale, panel, step);
  if (count > 8) pack_8_rows(from + 8 * stride, stride, count - 8, depth, scale, panel + 8, step);
}

/// Two neighbours of the depth, 16 lanes each, interleaved to words.
inline __m512i interleaved(__m512 even, __m512 odd) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);  // even in the lower half of the register
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                                         18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}

template <Index Lanes>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __mmask16 mask = first_lanes(count < Lanes ? count : Lanes), stored = first_lanes(Lanes);
  for (Index k = 0; k < depth; k += 2) {
    const __m512 even = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + k * stride), factor);
    const __m512 odd = k + 1 < depth ? _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + (k + 1) * stride), factor) : _mm512_setzero_ps();
    _mm512_mask_storeu_epi32(panel + k / 2 * step, stored, interleaved(even, odd));
  }
}

/// As avx512::pack_blocks, two elements of the depth at a time.
inline void pack_blocks(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  const __m512 table = _mm512_loadu_ps(s.table.data()), factor = _mm512_set1_ps(scale);
  const bool is_table = s.order != CodeOrder::bytes;
  alignas(64) std::uint8_t codes[512];
  avx512::Scales scales;
  for (Index k = 0; k < depth; k += 32) {
    if (k == 0 || (col + k) % s.group == 0) scales.load(s, row, count, col + k);
    avx512::load_codes(s, row, count, col + k, codes);
    const __m512 slope = _mm512_mul_ps(_mm512_load_ps(scales.scale), factor);
    const __m512 offset = _mm512_mul_ps(_mm512_load_ps(scales.offset), factor);
    LOWRANK_UNROLL
    for (Index q = 0; q < 16; ++q) {
      const __m512 even = _mm512_fmadd_ps(avx512::numbers_of(codes + 32 * q, is_table, table), slope, offset);
      const __m512 odd = _mm512_fmadd_ps(avx512::numbers_of(codes + 32 * q + 16, is_table, table), slope, offset);
      _mm512_storeu_si512(panel + (k / 2 + q) * step, interleaved(even, odd));
    }
  }
}

template <CodeOrder Order>
void pack_transposed_codes(const BlockSource& s, Index row, Index count, Index col, float scale, Word* panel, Index step) {
  const __m512 table = _mm512_loadu_ps(s.table.data()), factor = _mm512_set1_ps(scale);
  const Index row_bytes = s.row_bytes();
  avx512::Scales scales;
  for (Index k = 0; k < count; k += 16, panel += 8 * step) {
    const Index rows = count - k < 16 ? count - k : 16;
    scales.load(s, row + k, rows, col);
    _mm512_store_ps(scales.scale, _mm512_mul_ps(_mm512_load_ps(scales.scale), factor));
    _mm512_store_ps(scales.offset, _mm512_mul_ps(_mm512_load_ps(scales.offset), factor));
    CodePlace place(s, (row + k) * s.pitch + col);
    for (Index q = 0; q < rows; q += 2) {
      __m512 pair[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
      LOWRANK_UNROLL
      for (Index i = 0; i < 2; ++i) {
        if (q + i >= rows) break;
        pair[i] = _mm512_fmadd_ps(avx512::unscaled_16(Order, place, table), _mm512_set1_ps(scales.scale[q + i]),
                                  _mm512_set1_ps(scales.offset[q + i]));
        place.bytes += row_bytes;
      }
      _mm512_storeu_si512(panel + q / 2 * step, interleaved(pair[0], pair[1]));
    }
  }
}

/// The same for a transposed matrix: its rows [row, row + depth) run along the depth, its columns [col, col + 16) along the lanes.
inline void pack_blocks_transposed(const BlockSource& s, Index row, Index, Index col, Index depth, float scale, Word* panel, Index step) {
  switch (s.order) {
    case CodeOrder::nibble_pairs:
      return pack_transposed_codes<CodeOrder::nibble_pairs>(s, row, depth, col, scale, panel, step);
    case CodeOrder::nibble_halves:
      return pack_transposed_codes<CodeOrder::nibble_halves>(s, row, depth, col, scale, panel, step);
    case CodeOrder::bytes:
      return pack_transposed_codes<CodeOrder::bytes>(s, row, depth, col, scale, panel, step);
  }
}

/// sum[j][v] += row vector v of a word of two neighbours times its token j. The rows come from the second-level cache.
template <int Vectors, int Columns>
[[gnu::always_inline]] inline void add_word(const Word* a, const Word* b, Floats (&sum)[Columns][Vectors]) {
  __m512i row[Vectors];
  LOWRANK_UNROLL
  for (int v = 0; v < Vectors; ++v) row[v] = _mm512_loadu_si512(a + v * lanes);
  LOWRANK_UNROLL
  for (int v = 0; v < Vectors; ++v) _mm_prefetch(reinterpret_cast<const char*>(a + (8 * Vectors + v) * lanes), _MM_HINT_T0);
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    const __m512i token = _mm512_set1_epi32(static_cast<int>(b[j]));
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) sum[j][v].v = _mm512_dpbf16_ps(sum[j][v].v, (__m512bh)row[v], (__m512bh)token);
  }
}
