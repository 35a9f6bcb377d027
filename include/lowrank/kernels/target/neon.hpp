#pragma once

/// Advanced SIMD, which every aarch64 processor has: 4 floats a vector, panels of 8 rows and 12 tokens (24 sums, 2 vectors of rows, 3 of
/// tokens: 29 of the 32 registers).

#if defined(__aarch64__) && defined(__ARM_NEON)

#include <arm_neon.h>

#include <lowrank/kernels/target/scalar.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels::neon {

inline constexpr Index lanes = 4, vectors = 2, columns = 12;

/// Floats rounded to the nearest bfloat16, ties to even; NaN stays NaN.
inline float32x4_t round_to_bfloat16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
  const uint32x4_t kept = vbslq_u32(vceqq_f32(x, x), rounded, vorrq_u32(bits, vdupq_n_u32(0x400000)));
  return vreinterpretq_f32_u32(vandq_u32(kept, vdupq_n_u32(0xffff0000u)));
}

template <bool Rounded>
inline void store(Word* to, float32x4_t x) {
  vst1q_u32(to, vreinterpretq_u32_f32(Rounded ? round_to_bfloat16(x) : x));
}

/// The first count of 4 floats, the others zero; nothing behind them is read or written.
inline float32x4_t load_first(const float* from, Index count) {
  float four[4] = {};
  for (Index i = 0; i < count && i < 4; ++i) four[i] = from[i];
  return vld1q_f32(four);
}
inline void store_first(float* to, Index count, float32x4_t x) {
  float four[4];
  vst1q_f32(four, x);
  for (Index i = 0; i < count && i < 4; ++i) to[i] = four[i];
}

/// Transposes 4 x 4 floats in place.
inline void transpose(float32x4_t* r) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])), b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])), d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
  r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
  r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
  r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
  r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

/// Four rows to four lanes of a panel.
template <bool Rounded>
inline void pack_four_rows(const float* const* row, Index depth, float scale, Word* panel, Index step) {
  Index k = 0;
  for (; k + 4 <= depth; k += 4) {
    float32x4_t r[4];
    LOWRANK_UNROLL
    for (int i = 0; i < 4; ++i) r[i] = vmulq_n_f32(vld1q_f32(row[i] + k), scale);
    transpose(r);
    LOWRANK_UNROLL
    for (int i = 0; i < 4; ++i) store<Rounded>(panel + (k + i) * step, r[i]);
  }
  for (; k < depth; ++k) {
    const float four[4] = {row[0][k], row[1][k], row[2][k], row[3][k]};
    store<Rounded>(panel + k * step, vmulq_n_f32(vld1q_f32(four), scale));
  }
}

template <Index Lanes, bool Rounded>
void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index lane = 0; lane < Lanes; lane += 4) {
    const float* row[4];
    for (Index i = 0; i < 4; ++i) row[i] = from + (lane + i < count ? lane + i : 0) * stride;  // a missing lane repeats lane 0
    pack_four_rows<Rounded>(row, depth, scale, panel + lane, step);
  }
}

template <Index Lanes, bool Rounded>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index k = 0; k < depth; ++k) {
    const float* row = from + k * stride;
    LOWRANK_UNROLL
    for (Index lane = 0; lane < Lanes; lane += 4) {
      const float32x4_t four = lane + 4 <= count ? vld1q_f32(row + lane) : load_first(row + lane, count - lane);
      store<Rounded>(panel + k * step + lane, vmulq_n_f32(four, scale));
    }
  }
}

/// sum[j] += row * token[j] for four tokens.
template <int Vectors>
[[gnu::always_inline]] inline void add_four(float32x4_t (*sum)[Vectors], const float32x4_t* row, float32x4_t token) {
  LOWRANK_UNROLL
  for (int v = 0; v < Vectors; ++v) {
    sum[0][v] = vfmaq_laneq_f32(sum[0][v], row[v], token, 0);
    sum[1][v] = vfmaq_laneq_f32(sum[1][v], row[v], token, 1);
    sum[2][v] = vfmaq_laneq_f32(sum[2][v], row[v], token, 2);
    sum[3][v] = vfmaq_laneq_f32(sum[3][v], row[v], token, 3);
  }
}

template <int Vectors, int Columns>
void multiply_tile(Index words, Index rows, Index column_count, const Word* a, const Word* b, float* c, Index ldc, bool accumulate) {
  const Index last = rows - (Vectors - 1) * lanes;
  float32x4_t sum[Columns][Vectors];
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      const float* from = c + j * ldc + v * lanes;
      sum[j][v] = vdupq_n_f32(0);
      if (accumulate && j < column_count) sum[j][v] = v < Vectors - 1 || last == lanes ? vld1q_f32(from) : load_first(from, last);
    }
  }
  for (Index k = 0; k < words; ++k, a += Vectors * lanes, b += columns) {
    float32x4_t row[Vectors];
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) row[v] = vreinterpretq_f32_u32(vld1q_u32(a + v * lanes));
    LOWRANK_UNROLL
    for (int j = 0; j < Columns; j += 4) add_four<Vectors>(sum + j, row, vreinterpretq_f32_u32(vld1q_u32(b + j)));
  }
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    if (j >= column_count) break;
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      float* to = c + j * ldc + v * lanes;
      v < Vectors - 1 || last == lanes ? vst1q_f32(to, sum[j][v]) : store_first(to, last, sum[j][v]);
    }
  }
}

template <int Vectors>
void multiply_columns(Index words, Index rows, Index column_count, const Word* a, const Word* b, float* c, Index ldc, bool accumulate) {
  if (column_count <= 4) return multiply_tile<Vectors, 4>(words, rows, column_count, a, b, c, ldc, accumulate);
  if (column_count <= 8) return multiply_tile<Vectors, 8>(words, rows, column_count, a, b, c, ldc, accumulate);
  multiply_tile<Vectors, 12>(words, rows, column_count, a, b, c, ldc, accumulate);
}

inline void multiply(Index words, Index vector_count, Index rows, Index column_count, const Word* a, const Word* b, float* c, Index ldc,
                     bool accumulate) {
  if (vector_count == 1) return multiply_columns<1>(words, rows, column_count, a, b, c, ldc, accumulate);
  multiply_columns<2>(words, rows, column_count, a, b, c, ldc, accumulate);
}

inline void widen_bfloat16(const void* from, Index length, float* out) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
  Index j = 0;
  for (; j + 8 <= length; j += 8) {
    const uint16x8_t eight = vld1q_u16(bits + j), zero = vdupq_n_u16(0);
    vst1q_f32(out + j, vreinterpretq_f32_u16(vzip1q_u16(zero, eight)));
    vst1q_f32(out + j + 4, vreinterpretq_f32_u16(vzip2q_u16(zero, eight)));
  }
  scalar::widen<bfloat16>(bits + j, length - j, out + j);
}

inline void widen_half(const void* from, Index length, float* out) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
  Index j = 0;
  for (; j + 4 <= length; j += 4) vst1q_f32(out + j, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(bits + j))));
  scalar::widen<half>(bits + j, length - j, out + j);
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels::neon

#endif  // defined(__aarch64__) && defined(__ARM_NEON)
