// AVX-512 with BF16: a word holds two neighbours of the depth, and vdpbf16ps multiplies both and adds them to a float sum.

using namespace avx512::simd;
using avx512::columns, avx512::lanes, avx512::tile_columns, avx512::vectors;

/// 8 rows of 8 words to 8 words of 8 rows, two a register: rows[i] holds rows 2 i and 2 i + 1, out[j] words 2 j and 2 j + 1.
[[gnu::always_inline]] inline void transpose_words(const __m512i (&rows)[4], __m512i (&out)[4]) {
  const __m512i low = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
  const __m512i front = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), back = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  LOWRANK_UNROLL
  for (int half = 0; half < 2; ++half) {  // words 0 … 3, then 4 … 7: four rows together, then all eight
    const __m512i order = half == 0 ? low : high;
    const __m512i a = _mm512_permutex2var_epi32(rows[0], order, rows[1]), b = _mm512_permutex2var_epi32(rows[2], order, rows[3]);
    out[2 * half] = _mm512_permutex2var_epi64(a, front, b);
    out[2 * half + 1] = _mm512_permutex2var_epi64(a, back, b);
  }
}

/// Lanes of 8: words of 8 rows, transposed as words.
inline void pack_8_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m512 factor = _mm512_set1_ps(scale);
  const float* row[8];
  for (Index i = 0; i < 8; ++i) row[i] = from + (i < count ? i : 0) * stride;  // a missing lane repeats lane 0
  for (Index k = 0; k < depth; k += 16) {
    const Index length = depth - k < 16 ? depth - k : 16, words = (length + 1) / 2;
    const __mmask16 mask = first_lanes(length);
    __m512i rows[4], out[4];
    LOWRANK_UNROLL
    for (int i = 0; i < 4; ++i) {
      const __m512 a = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, row[2 * i] + k), factor);
      const __m512 b = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, row[2 * i + 1] + k), factor);
      rows[i] = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    }
    transpose_words(rows, out);
    LOWRANK_UNROLL
    for (Index j = 0; j < 8; ++j) {
      if (j >= words) break;
      const __m256i word = j % 2 == 0 ? _mm512_castsi512_si256(out[j / 2]) : _mm512_extracti64x4_epi64(out[j / 2], 1);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + (k / 2 + j) * step), word);
    }
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

/// The first 8 lanes of two rows of the depth, side by side.
inline __m512 two_rows(__mmask8 mask, const float* first, const float* second) {
  const __m512 low = _mm512_castps256_ps512(_mm256_maskz_loadu_ps(mask, first));
  return _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(low), _mm256_castps_pd(_mm256_maskz_loadu_ps(mask, second)), 1));
}

template <Index Lanes>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __mmask16 mask = first_lanes(count < Lanes ? count : Lanes), stored = first_lanes(Lanes);
  Index k = 0;
  if constexpr (Lanes == 8) {  // two words a register
    for (const __mmask8 half = static_cast<__mmask8>(mask); k + 4 <= depth; k += 4) {
      const float* row = from + k * stride;
      const __m512 even = _mm512_mul_ps(two_rows(half, row, row + 2 * stride), factor);
      const __m512 odd = _mm512_mul_ps(two_rows(half, row + stride, row + 3 * stride), factor);
      const __m512i words = interleaved(even, odd);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + k / 2 * step), _mm512_castsi512_si256(words));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + (k / 2 + 1) * step), _mm512_extracti64x4_epi64(words, 1));
    }
  }
  for (; k < depth; k += 2) {
    const __m512 even = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + k * stride), factor);
    const __m512 odd = k + 1 < depth ? _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + (k + 1) * stride), factor) : _mm512_setzero_ps();
    _mm512_mask_storeu_epi32(panel + k / 2 * step, stored, interleaved(even, odd));
  }
}

/// Rows times columns of words, each element one chain.
template <int Columns, int Groups>
struct ProductSink {
  const Word* b;
  __m512 sum[Groups][Columns] = {}, slope[Groups] = {}, offset[Groups] = {};

  [[gnu::always_inline]] void scale(int g, __m512 slopes, __m512 offsets) { slope[g] = slopes, offset[g] = offsets; }
  [[gnu::always_inline]] void put(int g, Index k, __m512 even, __m512 odd) {
    const __m512i row = interleaved(_mm512_fmadd_ps(even, slope[g], offset[g]), _mm512_fmadd_ps(odd, slope[g], offset[g]));
    LOWRANK_UNROLL
    for (int j = 0; j < Columns; ++j)
      sum[g][j] = _mm512_dpbf16_ps(sum[g][j], (__m512bh)row, (__m512bh)_mm512_set1_epi32(static_cast<int>(b[k / 2 * columns + j])));
  }
};

#include <lowrank/kernels/target/avx512/pack_blocks.inl>

/// As avx512::pack_any_rows, two elements of the depth at a time, as the next.
inline void pack_any_rows(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  const __m512 table = _mm512_loadu_ps(s.table.data()), factor = _mm512_set1_ps(scale);
  alignas(64) std::uint8_t codes[512];
  avx512::AnyRows rows(s, row, count, col);
  for (Index k = 0; k < depth; k += 32) {
    rows.load_codes(k / 32, codes);
    rows.load_scales(factor);
    for (int q = 0; q < 32; q += 2) {
      const __m512 even = _mm512_mul_ps(avx512::numbers_of(codes + 16 * q, table), rows.scale(q));
      const __m512 odd = _mm512_mul_ps(avx512::numbers_of(codes + 16 * q + 16, table), rows.scale(q + 1));
      _mm512_storeu_si512(panel + (k + q) / 2 * step, interleaved(even, odd));
    }
  }
}

/// Words of two neighbours.
struct PanelSink {
  Word* panel;
  Index step;
  __m512 slope = {}, offset = {};

  [[gnu::always_inline]] void scale(int, __m512 slopes, __m512 offsets) { slope = slopes, offset = offsets; }
  [[gnu::always_inline]] void put(int, Index k, __m512 even, __m512 odd) const {
    const __m512i words = interleaved(_mm512_fmadd_ps(even, slope, offset), _mm512_fmadd_ps(odd, slope, offset));
    _mm512_storeu_si512(panel + k / 2 * step, words);
  }
};

inline void pack_blocks(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  if (!s.rows_hold_whole_groups()) return pack_any_rows(s, row, count, col, depth, scale, panel, step);
  unpack_blocks<1>(s, row, count, col, depth, scale, PanelSink{panel, step});
}

/// 16 signed bytes as numbers.
[[gnu::always_inline]] inline __m512 signed_16(const std::byte* at) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}

/// 16 codes of a row, one a double word, of which the lowest bits count; `shift` brings each to the lowest.
template <CodeOrder Order>
[[gnu::always_inline]] inline __m512i codes_16(const std::byte* bytes) {
  const auto* at = reinterpret_cast<const __m128i*>(bytes);
  if constexpr (Order != CodeOrder::nibble_pairs) return _mm512_cvtepu8_epi32(_mm_loadu_si128(at));
  const __m128i pairs = _mm_loadl_epi64(at);
  return _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(pairs, pairs));
}

/// Scale and offset of the group of one column in each row of a run, times a factor, in the two lowest lanes.
class RowScales {
 public:
  RowScales(const BlockSource& s, Index row, Index col, float factor)
      : source_(s), row_(row), col_(col), groups_(s.pitch / s.group), row_bytes_(s.row_bytes()), factor_(_mm_set1_ps(factor)) {
    const bool has_halves = s.read_scales == HalfScales::read && (s.offset_at < 0 || s.offset_at == s.scale_at + 2);
    if (has_halves) halves_ = s.data + row * row_bytes_ + col / s.block * s.block_bytes + s.scale_at;
    mask_ = _mm_setr_epi32(-1, s.offset_at < 0 ? 0 : -1, 0, 0);
  }
  /// Of row i of the run.
  [[gnu::always_inline]] __m128 operator()(Index i) const {
    if (halves_ != nullptr) {  // codes follow a block's numbers, so that 4 bytes can be read
      const __m128 both = _mm_cvtph_ps(_mm_loadu_si32(halves_ + i * row_bytes_));
      return _mm_mul_ps(_mm_and_ps(both, _mm_castsi128_ps(mask_)), factor_);
    }
    float scale, offset;
    const Index group = (row_ + i) * groups_ + col_ / source_.group;
    if (source_.read_scales == ArrayScales::read) return _mm_mul_ss(_mm_set_ss(ArrayScales::float_at(source_.scales, group)), factor_);
    source_.read_scales(source_, group, 1, &scale, &offset);
    return _mm_mul_ps(_mm_setr_ps(scale, offset, 0, 0), factor_);
  }

 private:
  const BlockSource& source_;
  Index row_, col_, groups_, row_bytes_;
  __m128 factor_;
  __m128i mask_;
  const std::byte* halves_ = nullptr;
};

/// number · scale + offset.
[[gnu::always_inline]] inline __m512 scaled(__m512 number, __m128 pair) {
  return _mm512_fmadd_ps(number, _mm512_broadcastss_ps(pair), _mm512_broadcastss_ps(_mm_movehdup_ps(pair)));
}

/// Words of 16 elements each of two rows: for nibbles one look-up in both rows' tables, which are scaled and rounded.
template <CodeOrder Order>
[[gnu::always_inline]] inline __m512i words_of_rows(const std::byte* first, const std::byte* second, __m128 first_pair, __m128 second_pair,
                                                    __m512 table, __m512i shift) {
  if constexpr (Order == CodeOrder::bytes) return interleaved(scaled(signed_16(first), first_pair), scaled(signed_16(second), second_pair));
  const __m512i tables = (__m512i)_mm512_cvtne2ps_pbh(scaled(table, second_pair), scaled(table, first_pair));
  const __m512i codes = _mm512_or_si512(codes_16<Order>(first), _mm512_slli_epi32(codes_16<Order>(second), 16));
  const __m512i nibbles = _mm512_and_si512(_mm512_srlv_epi32(codes, shift), _mm512_set1_epi16(15));
  return _mm512_permutexvar_epi16(_mm512_or_si512(nibbles, _mm512_set1_epi32(16 << 16)), tables);
}

template <CodeOrder Order>
void pack_transposed_codes(const BlockSource& s, Index row, Index count, Index col, float scale, Word* panel, Index step) {
  const __m512 table = _mm512_loadu_ps(s.table.data());
  const Index row_bytes = s.row_bytes();
  const CodePlace place(s, row * s.pitch + col);
  const bool is_pairs = Order == CodeOrder::nibble_pairs;  // even lanes by 4, odd ones by 0
  const __m512i shift = is_pairs ? _mm512_set1_epi64(4) : _mm512_set1_epi32(static_cast<int>(place.shift));
  const RowScales scales(s, row, col, scale);
  const std::byte* at = place.bytes;
  Index k = 0;
  for (; k + 2 <= count; k += 2, at += 2 * row_bytes, panel += step) {
    avx512::ask_for_rows<2>(at + 64 * row_bytes, row_bytes);
    avx512::ask_for_rows<2>(at + 64 * row_bytes + 15, row_bytes);
    _mm512_storeu_si512(panel, words_of_rows<Order>(at, at + row_bytes, scales(k), scales(k + 1), table, shift));
  }
  if (k < count) _mm512_storeu_si512(panel, words_of_rows<Order>(at, at, scales(k), _mm_setzero_ps(), table, shift));
}

/// The same for nibble pairs from any element on, which belong to a group or two.
inline void pack_any_rows_transposed(const BlockSource& s, Index row, Index count, Index col, float scale, Word* panel, Index step) {
  const __m512 table = _mm512_loadu_ps(s.table.data()), factor = _mm512_set1_ps(scale);
  Index element = row * s.pitch + col, group = element / s.group, inside = element % s.group;
  const Index groups = s.pitch / s.group, rest = s.pitch % s.group;
  for (Index k = 0; k < count; k += 2, panel += step) {
    __m512 pair[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (Index i = 0; i < 2 && k + i < count; ++i) {
      const Index left = s.group - inside;
      float scales[2], offsets[2];
      if (s.read_scales == ArrayScales::read)
        for (Index g = 0; g <= (left < 16); ++g) scales[g] = ArrayScales::float_at(s.scales, group + g);
      else
        s.read_scales(s, group, left < 16 ? 2 : 1, scales, offsets);
      const __m512 slope = _mm512_mul_ps(avx512::of_groups(left, scales), factor);
      pair[i] = _mm512_mul_ps(avx512::pairs_16(s.data + element / 2, element % 2 == 1, table), slope);
      element += s.pitch, group += groups, inside += rest;
      if (inside >= s.group) inside -= s.group, ++group;
    }
    _mm512_storeu_si512(panel, interleaved(pair[0], pair[1]));
  }
}

/// The same for a transposed matrix: its rows [row, row + depth) run along the depth, its columns [col, col + 16) along the lanes.
inline void pack_blocks_transposed(const BlockSource& s, Index row, Index, Index col, Index depth, float scale, Word* panel, Index step) {
  if (!s.rows_hold_whole_groups() || col % 16 != 0 || s.group % 16 != 0)
    return pack_any_rows_transposed(s, row, depth, col, scale, panel, step);
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
