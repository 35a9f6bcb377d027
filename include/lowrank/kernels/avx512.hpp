#pragma once

/// AVX-512 (F, BW, VL, DQ): 16 floats a vector, panels of 48 rows and 8 tokens (24 sums, 3 rows, 1 token of 32 registers).

#if defined(__x86_64__)

#include <lowrank/kernels/avx2.hpp>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own intrinsics start from an undefined register
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#endif

namespace lowrank::inline LOWRANK_ABI::kernels::avx512 {

inline constexpr Index lanes = 16, vectors = 3, columns = 8;

inline __mmask16 first_lanes(Index count) { return static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1u); }

/// Two 8-lane transposes side by side.
template <bool Rounded>
void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  avx2::pack_rows<8, Rounded>(from, stride, count, depth, scale, panel, step);
  if (count > 8) avx2::pack_rows<8, Rounded>(from + 8 * stride, stride, count - 8, depth, scale, panel + 8, step);
}

/// Floats rounded to the nearest bfloat16, ties to even; NaN stays NaN.
inline __m512 round_to_bfloat16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i kept = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits);
  return _mm512_castsi512_ps(_mm512_and_si512(kept, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

template <bool Rounded>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __mmask16 mask = first_lanes(count);
  for (Index k = 0; k < depth; ++k) {
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + k * stride), factor);
    _mm512_storeu_ps(panel + k * step, Rounded ? round_to_bfloat16(scaled) : scaled);
  }
}

template <int Vectors, int Columns>
void multiply_tile(Index words, Index rows, Index column_count, const Word* a, const Word* b, float* c, Index ldc, bool accumulate) {
  const __mmask16 last = first_lanes(rows - (Vectors - 1) * lanes);
  __m512 sum[Columns][Vectors];
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v)
      sum[j][v] = accumulate && j < column_count ? _mm512_maskz_loadu_ps(v == Vectors - 1 ? last : first_lanes(16), c + j * ldc + v * lanes)
                                                 : _mm512_setzero_ps();
  }
  for (Index k = 0; k < words; ++k, a += Vectors * lanes, b += columns) {
    __m512 row[Vectors];
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) row[v] = _mm512_loadu_ps(a + v * lanes);
    LOWRANK_UNROLL
    for (int j = 0; j < Columns; ++j) {
      const __m512 token = _mm512_set1_ps(reinterpret_cast<const float*>(b)[j]);
      LOWRANK_UNROLL
      for (int v = 0; v < Vectors; ++v) sum[j][v] = _mm512_fmadd_ps(row[v], token, sum[j][v]);
    }
  }
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    if (j >= column_count) break;
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) _mm512_mask_storeu_ps(c + j * ldc + v * lanes, v == Vectors - 1 ? last : first_lanes(16), sum[j][v]);
  }
}

template <int Vectors>
void multiply_columns(Index words, Index rows, Index column_count, const Word* a, const Word* b, float* c, Index ldc, bool accumulate) {
  if (column_count <= 2) return multiply_tile<Vectors, 2>(words, rows, column_count, a, b, c, ldc, accumulate);
  if (column_count <= 4) return multiply_tile<Vectors, 4>(words, rows, column_count, a, b, c, ldc, accumulate);
  multiply_tile<Vectors, 8>(words, rows, column_count, a, b, c, ldc, accumulate);
}

inline void multiply(Index words, Index vector_count, Index rows, Index column_count, const Word* a, const Word* b, float* c, Index ldc,
                     bool accumulate) {
  if (vector_count == 1) return multiply_columns<1>(words, rows, column_count, a, b, c, ldc, accumulate);
  if (vector_count == 2) return multiply_columns<2>(words, rows, column_count, a, b, c, ldc, accumulate);
  multiply_columns<3>(words, rows, column_count, a, b, c, ldc, accumulate);
}

/// out[q * 16 + i] = byte q of row i, for 16 bytes of 16 rows; missing rows repeat row 0.
///
/// Register z holds rows z, 4 + z, 8 + z, 12 + z, one a 128-bit lane. Two rounds of byte and word unpacking bring the four rows of a lane
/// together, then one permutation of the 16 double words brings the four lanes together: 28 instructions for 256 bytes.
inline void transpose_bytes(const std::byte* from, Index stride, Index count, std::byte* out) {
  __m512i z[4];
  LOWRANK_UNROLL
  for (Index i = 0; i < 4; ++i) {
    __m128i part[4];
    LOWRANK_UNROLL
    for (Index l = 0; l < 4; ++l) {
      const Index row = 4 * l + i;
      part[l] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + (row < count ? row : 0) * stride));
    }
    const __m512i low = _mm512_inserti32x4(_mm512_castsi128_si512(part[0]), part[1], 1);
    z[i] = _mm512_inserti32x4(_mm512_inserti32x4(low, part[2], 2), part[3], 3);
  }
  const __m512i t0 = _mm512_unpacklo_epi8(z[0], z[1]), t1 = _mm512_unpackhi_epi8(z[0], z[1]);
  const __m512i t2 = _mm512_unpacklo_epi8(z[2], z[3]), t3 = _mm512_unpackhi_epi8(z[2], z[3]);
  const __m512i words[4] = {_mm512_unpacklo_epi16(t0, t2), _mm512_unpackhi_epi16(t0, t2), _mm512_unpacklo_epi16(t1, t3),
                            _mm512_unpackhi_epi16(t1, t3)};
  const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  LOWRANK_UNROLL
  for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + 64 * i, _mm512_permutexvar_epi32(turn, words[i]));
}

/// Scales and offsets of the group that holds column col, for 16 rows.
struct Scales {
  __m512 scale, offset;
};
inline Scales load_scales(const BlockSource& s, Index row, Index count, Index col) {
  alignas(64) float scale[16], offset[16];
  const Index groups = s.col_count / s.group, first = row * groups + col / s.group;
  if (s.read_scales == ArrayScales::read) {
    for (Index i = 0; i < 16; ++i) scale[i] = s.scales[first + (i < count ? i : 0) * groups];
    return {_mm512_load_ps(scale), _mm512_setzero_ps()};
  }
  if (s.read_scales == HalfScales::read) {
    alignas(32) std::uint16_t scale_bits[16], offset_bits[16] = {};
    const Index row_bytes = s.col_count / s.block * s.block_bytes;
    const std::byte* at = s.data + row * row_bytes + col / s.block * s.block_bytes;
    for (Index i = 0; i < 16; ++i) {
      const std::byte* block = at + (i < count ? i : 0) * row_bytes;
      std::memcpy(&scale_bits[i], block + s.scale_at, 2);
      if (s.offset_at >= 0) std::memcpy(&offset_bits[i], block + s.offset_at, 2);
    }
    return {_mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(scale_bits))),
            _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(offset_bits)))};
  }
  for (Index i = 0; i < 16; ++i) s.read_scales(s, first + (i < count ? i : 0) * groups, 1, scale + i, offset + i);
  return {_mm512_load_ps(scale), _mm512_load_ps(offset)};
}

inline void decode_turned(const BlockSource& s, Index row, Index count, Index col, Index length, float* out) {
  const __m512 table = _mm512_loadu_ps(s.table.data());
  const bool pairs = s.order == CodeOrder::nibble_pairs, halves = s.order == CodeOrder::nibble_halves;
  const Index row_bytes = pairs ? s.col_count / 2 : s.col_count / s.block * s.block_bytes;
  Scales scales = load_scales(s, row, count, col);
  alignas(64) std::byte turned[256];
  const std::byte* last = nullptr;
  for (Index j = 0; j < length;) {
    const Index at = col + j;
    if (j > 0 && at % s.group == 0) scales = load_scales(s, row, count, at);
    const Index inside = at % s.block, position = inside % (2 * s.run);  // of nibble_halves
    const std::byte* bytes = s.data + row * row_bytes;
    if (pairs)
      bytes += at / 2;
    else
      bytes += at / s.block * s.block_bytes + s.codes_at + (halves ? inside / (2 * s.run) * s.run + position % s.run : inside);
    if (bytes != last) transpose_bytes(bytes, row_bytes, count, turned);
    last = bytes;
    const __m128i shift = _mm_cvtsi32_si128(halves && position >= s.run ? 4 : 0);
    for (Index q = 0; q < 16; ++q) {
      const __m128i codes = _mm_load_si128(reinterpret_cast<const __m128i*>(turned + 16 * q));
      if (pairs) {
        const __m512i both = _mm512_cvtepu8_epi32(codes);
        const __m512 even = _mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), table), odd = _mm512_permutexvar_ps(both, table);
        _mm512_storeu_ps(out + (j + 2 * q) * lanes, _mm512_fmadd_ps(even, scales.scale, scales.offset));
        _mm512_storeu_ps(out + (j + 2 * q + 1) * lanes, _mm512_fmadd_ps(odd, scales.scale, scales.offset));
      } else {
        const __m512 number = halves ? _mm512_permutexvar_ps(_mm512_srl_epi32(_mm512_cvtepu8_epi32(codes), shift), table)
                                     : _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
        _mm512_storeu_ps(out + (j + q) * lanes, _mm512_fmadd_ps(number, scales.scale, scales.offset));
      }
    }
    j += pairs ? 32 : 16;
  }
}

template <bool Rounded>
constexpr PanelKernels panel_kernels() {
  return {.unit = 1,
          .pack_rows = pack_rows<Rounded>,
          .pack_columns = pack_columns<Rounded>,
          .pack_token_rows = avx2::pack_rows<columns, Rounded>,
          .pack_token_columns = avx2::pack_columns<columns, Rounded>,
          .multiply = multiply};
}

inline constexpr KernelTable table = {.name = "avx512",
                                      .lanes = lanes,
                                      .vectors = vectors,
                                      .columns = columns,
                                      .fp32 = panel_kernels<false>(),
                                      .bf16 = panel_kernels<true>(),
                                      .decode_blocks = avx2::decode_blocks,
                                      .decode_turned = decode_turned,
                                      .widen_bfloat16 = avx2::widen_bfloat16,
                                      .widen_half = avx2::widen_half};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

#endif  // defined(__x86_64__)
