// Activations as tiles of tokens: [depth / 32][32 tokens][32 neighbours of the depth] in bfloat16. The rows' panels are AVX-512's: a word
// of 16 lanes is a row of a tile.

using namespace avx512::simd;
using avx512bf16::interleaved;

inline constexpr Index lanes = 16, vectors = 2, columns = 32, grain = 32;
inline constexpr Index tile_words = 256, half_words = 16 * lanes;  // of a tile; of the second 16 tokens in a panel

/// Rows of 32 neighbours; tokens lie `stride` apart, and the last row of each ends in zeros.
inline void pack_token_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (Index i = 0; i < count; ++i) {
    for (Index k = 0; k < depth; k += grain) {
      const float* at = from + i * stride + k;
      const Index left = depth - k;
      const __m512 low = _mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(left < 16 ? left : 16), at), factor);
      const __m512 high =
          left > 16 ? _mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(left < 32 ? left - 16 : 16), at + 16), factor) : _mm512_setzero_ps();
      _mm512_storeu_si512(panel + k / 2 * columns + i * lanes, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
  }
}

/// Transposes 16 x 16 words in place: within 128-bit lanes first, then the lanes.
inline void transpose(__m512i* r) {
  __m512i t[16];
  LOWRANK_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  LOWRANK_UNROLL
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  LOWRANK_UNROLL
  for (int i = 0; i < 4; ++i) {  // r[4 j + i] has rows 4 j … 4 j + 3 of columns i, 4 + i, 8 + i, 12 + i
    const __m512i even = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88), odd = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    const __m512i even_below = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88), odd_below = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    t[i] = _mm512_shuffle_i32x4(even, even_below, 0x88);
    t[8 + i] = _mm512_shuffle_i32x4(even, even_below, 0xdd);
    t[4 + i] = _mm512_shuffle_i32x4(odd, odd_below, 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(odd, odd_below, 0xdd);
  }
  LOWRANK_UNROLL
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

/// The same from numbers whose tokens lie side by side.
inline void pack_token_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (Index k = 0; k < depth; k += grain) {
    for (Index i = 0; i < count; i += lanes) {
      const __mmask16 tokens = first_lanes(count - i < lanes ? count - i : lanes);
      __m512i words[16];
      LOWRANK_UNROLL
      for (Index q = 0; q < 16; ++q) {
        const Index at = k + 2 * q;
        const __m512 even = _mm512_maskz_loadu_ps(at < depth ? tokens : __mmask16{0}, from + at * stride + i);
        const __m512 odd = _mm512_maskz_loadu_ps(at + 1 < depth ? tokens : __mmask16{0}, from + (at + 1) * stride + i);
        words[q] = interleaved(_mm512_mul_ps(even, factor), _mm512_mul_ps(odd, factor));
      }
      transpose(words);
      for (Index t = 0; t < lanes; ++t) _mm512_storeu_si512(panel + k / 2 * columns + (i + t) * lanes, words[t]);
    }
  }
}
