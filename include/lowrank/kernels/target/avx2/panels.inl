// AVX2 with FMA and F16C: 8 floats a vector, panels of 24 rows and 4 tokens (12 sums, 3 rows, 1 token: the 16 registers).

inline constexpr Index lanes = 8, vectors = 3, columns = 4;
inline constexpr int tile_columns[] = {1, 2, 4};

template <bool Rounded>
inline __m256 packed(__m256 x, __m256 scale) {
  const Floats scaled{_mm256_mul_ps(x, scale)};
  return Rounded ? nearest_bfloat16(scaled).v : scaled.v;
}

/// Mask whose first count of 8 words are set.
inline __m256i first_words(Index count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// Transposes 8 x 8 words in place.
inline void transpose(__m256i* r) {
  __m256i t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
  __m256i u[8];
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
  }
}

/// Stores the first four or eight words of each of count vectors, `step` apart.
inline void store_words(const __m256i* words, Index count, Index width, Word* panel, Index step) {
  if (width == 8)
    for (Index k = 0; k < count; ++k, panel += step) _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel), words[k]);
  else
    for (Index k = 0; k < count; ++k, panel += step) _mm_storeu_si128(reinterpret_cast<__m128i*>(panel), _mm256_castsi256_si128(words[k]));
}

template <bool Rounded>
void pack_rows_of(Index width, const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m256 factor = _mm256_set1_ps(scale);
  for (Index k = 0; k < depth; k += 8) {
    const Index length = depth - k < 8 ? depth - k : 8;
    __m256i rows[8];
    LOWRANK_UNROLL
    for (Index i = 0; i < 8; ++i) {
      const float* row = from + (i < count ? i : 0) * stride + k;  // a missing lane repeats lane 0
      const __m256 numbers = length == 8 ? _mm256_loadu_ps(row) : _mm256_maskload_ps(row, first_words(length));
      rows[i] = _mm256_castps_si256(packed<Rounded>(numbers, factor));
    }
    transpose(rows);
    store_words(rows, length, width, panel + k * step, step);
  }
}
template <Index Lanes, bool Rounded>
void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  pack_rows_of<Rounded>(Lanes, from, stride, count, depth, scale, panel, step);
}

template <Index Lanes, bool Rounded>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256i mask = first_words(count < Lanes ? count : Lanes);
  for (Index k = 0; k < depth; ++k) {
    const __m256i words = _mm256_castps_si256(packed<Rounded>(_mm256_maskload_ps(from + k * stride, mask), factor));
    store_words(&words, 1, Lanes, panel + k * step, step);
  }
}

/// sum[j][v] += row vector v of a word times its token j.
template <int Vectors, int Columns>
[[gnu::always_inline]] inline void add_word(const Word* a, const Word* b, Floats (&sum)[Columns][Vectors]) {
  __m256 row[Vectors];
  LOWRANK_UNROLL
  for (int v = 0; v < Vectors; ++v) row[v] = _mm256_loadu_ps(reinterpret_cast<const float*>(a) + v * lanes);
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    const __m256 token = _mm256_broadcast_ss(reinterpret_cast<const float*>(b) + j);
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) sum[j][v].v = _mm256_fmadd_ps(row[v], token, sum[j][v].v);
  }
}

/// The 16 entries of a code table in two registers.
struct Table {
  __m256 low, high;

  explicit Table(const float* entries) : low(_mm256_loadu_ps(entries)), high(_mm256_loadu_ps(entries + 8)) {}
  /// Entry of each code; bits above the fourth are ignored.
  __m256 operator[](__m256i code) const {
    const __m256 is_high = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), is_high);
  }
};

/// Elements that share a scale and whose codes follow each other in memory: 8 at a time, the odd ones by the plain rule.
inline void decode_stretch(const BlockSource& s, Index begin, Index length, const Table& table, float scale, float offset, float* out) {
  const __m256 factor = _mm256_set1_ps(scale), shift = _mm256_set1_ps(offset);
  Index j = 0;
  if (s.order == CodeOrder::nibble_pairs) {
    if (begin % 2 == 1 && length > 0) out[j++] = s.unscaled(begin) * scale + offset;
    const std::byte* bytes = s.data + (begin + j) / 2;
    const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
    for (; j + 8 <= length; j += 8, bytes += 4) {
      int four;
      std::memcpy(&four, bytes, 4);
      _mm256_storeu_ps(out + j, _mm256_fmadd_ps(table[_mm256_srlv_epi32(_mm256_set1_epi32(four), shifts)], factor, shift));
    }
  } else {
    const CodePlace place(s, begin);
    const __m128i nibble = _mm_cvtsi32_si128(static_cast<int>(place.shift));
    for (; j + 8 <= length; j += 8) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(place.bytes + j));
      const __m256 numbers = s.order == CodeOrder::bytes ? _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
                                                         : table[_mm256_srl_epi32(_mm256_cvtepu8_epi32(bytes), nibble)];
      _mm256_storeu_ps(out + j, _mm256_fmadd_ps(numbers, factor, shift));
    }
  }
  for (; j < length; ++j) out[j] = s.unscaled(begin + j) * scale + offset;
}

#include <lowrank/kernels/target/decode_row.inl>

inline void decode_blocks(const BlockSource& s, Index row, Index count, Index col, Index length, float* out, Index stride) {
  const Table table(s.table.data());
  for (Index i = 0; i < count; ++i) decode_row(s, row + i, col, length, table, out + i * stride);
}

inline void widen_bfloat16(const void* from, Index length, float* out) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
  Index j = 0;
  for (; j + 8 <= length; j += 8) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bits + j)));
    _mm256_storeu_ps(out + j, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
  }
  scalar::widen<BFloat16>(bits + j, length - j, out + j);
}

inline void widen_half(const void* from, Index length, float* out) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
  Index j = 0;
  for (; j + 8 <= length; j += 8) _mm256_storeu_ps(out + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bits + j))));
  scalar::widen<Half>(bits + j, length - j, out + j);
}
