#pragma once

/// The target that every machine has, in plain C++; the others fall back on its parts.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <lowrank/kernels/target/target.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::scalar {

/// A vector of one number.
struct Floats {
  static constexpr Index size = 1;
  float v;

  static Floats all(float x) { return {x}; }
  template <class Part>
  static Floats load(const float* from, Part, float = 0) {
    return {*from};
  }
  template <class Part>
  static Floats load(const BFloat16* from, Part) {
    return {*from};
  }
  template <class Part>
  void store(float* to, Part) const {
    *to = v;
  }
  template <class Part>
  void store_upper(std::uint16_t* to, Part) const {
    *to = static_cast<std::uint16_t>(bit_cast<std::uint32_t>(v) >> 16);
  }
};
inline Floats operator+(Floats a, Floats b) { return {a.v + b.v}; }
inline Floats operator-(Floats a, Floats b) { return {a.v - b.v}; }
inline Floats operator*(Floats a, Floats b) { return {a.v * b.v}; }
inline Floats operator/(Floats a, Floats b) { return {a.v / b.v}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {a.v * b.v + c.v}; }
inline Floats largest(Floats a, Floats b) { return {a.v > b.v ? a.v : b.v}; }  // b where one is NaN, as the vector instructions
inline Floats smallest(Floats a, Floats b) { return {a.v < b.v ? a.v : b.v}; }
inline Floats sqrt(Floats a) { return {std::sqrt(a.v)}; }
inline Floats round(Floats a) { return {std::nearbyint(a.v)}; }
inline Floats times_power(Floats x, Floats n) {
  if (!is_finite(n.v)) return {n.v};  // NaN
  return {x.v * bit_cast<float>((static_cast<std::int32_t>(n.v) + 127) << 23)};
}
inline float sum_of(Floats a) { return a.v; }
inline void store_sums(const Floats* a, float* out) {
  for (Index i = 0; i < 4; ++i) out[i] = a[i].v;
}
inline void store_sums(Floats a, float* out) { *out = a.v; }
inline float largest_of(Floats a) { return a.v; }
inline Floats twice(const float* from) { return {*from}; }
inline Floats swapped(Floats a) { return a; }
inline Floats alternating(float first, float) { return {first}; }

#include <lowrank/kernels/target/elementwise.inl>

/// What a packed float becomes: itself, or the float of its nearest bfloat16 (bf16 products on targets without bf16 instructions).
template <bool Rounded>
Word word_of(float value) {
  return bit_cast<Word>(Rounded ? static_cast<float>(BFloat16(value)) : value);
}

template <Index Lanes, bool Rounded>
void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index i = 0; i < std::min(count, Lanes); ++i)
    for (Index k = 0; k < depth; ++k) panel[k * step + i] = word_of<Rounded>(scale * from[i * stride + k]);
  for (Index i = count; i < Lanes; ++i)
    for (Index k = 0; k < depth; ++k) panel[k * step + i] = 0;
}

template <Index Lanes, bool Rounded>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index k = 0; k < depth; ++k)
    for (Index i = 0; i < Lanes; ++i) panel[k * step + i] = i < count ? word_of<Rounded>(scale * from[k * stride + i]) : 0;
}

inline constexpr Index lanes = 4, vectors = 2, columns = 4;

inline void multiply(Index words, Index vector_count, Index rows, Index column_count, const Word* a, const Word* b, const float* from,
                     Index from_stride, float* c, Index ldc) {
  const Index step = vector_count * lanes;
  float sum[columns][lanes * vectors] = {};
  for (Index j = 0; j < column_count && from != nullptr; ++j) std::copy_n(from + j * from_stride, rows, sum[j]);
  for (Index k = 0; k < words; ++k)
    for (Index j = 0; j < columns; ++j)
      for (Index i = 0; i < step; ++i) sum[j][i] += bit_cast<float>(a[k * step + i]) * bit_cast<float>(b[k * columns + j]);
  for (Index j = 0; j < column_count; ++j) std::copy_n(sum[j], rows, c + j * ldc);
}

inline void decode_blocks(const BlockSource& from, Index row, Index count, Index col, Index length, float* out, Index stride) {
  from.decode(row, count, col, length, out, stride);
}

template <class Element>
void widen(const void* from, Index length, float* out) {
  const auto* elements = static_cast<const Element*>(from);
  for (Index i = 0; i < length; ++i) out[i] = elements[i];
}

template <bool Rounded>
constexpr PanelKernels panel_kernels() {
  return {.lanes = lanes,
          .vectors = vectors,
          .columns = columns,
          .unit = 1,
          .grain = 1,
          .pack_rows = pack_rows<lanes, Rounded>,
          .pack_columns = pack_columns<lanes, Rounded>,
          .pack_token_rows = pack_rows<columns, Rounded>,
          .pack_token_columns = pack_columns<columns, Rounded>,
          .multiply = multiply};
}

inline bool is_available() { return true; }

inline constexpr Target target = {.name = "scalar",
                                  .is_available = is_available,
                                  .fp32 = panel_kernels<false>(),
                                  .bf16 = panel_kernels<true>(),
                                  .decode_blocks = decode_blocks,
                                  .widen_bfloat16 = widen<BFloat16>,
                                  .widen_half = widen<Half>,
                                  .quantize = {.encode_table = encode_table},
                                  .elementwise = elementwise};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::scalar
LOWRANK_IEEE_END
