#pragma once

/// Element-wise loops of the target that every machine has: vectors of one number.

#include <bit>
#include <cmath>
#include <limits>

#include <lowrank/kernels/target/elementwise.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels::scalar {

struct Floats {
  static constexpr Index size = 1;
  float v;

  static Floats all(float x) { return {x}; }
  template <class Part>
  static Floats load(const float* from, Part, float = 0) {
    return {*from};
  }
  template <class Part>
  void store(float* to, Part) const {
    *to = v;
  }
  template <class Part>
  void store_rounded(std::uint16_t* to, Part) const {
    *to = bfloat16(v).bits;
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
  if (!(n.v >= -127.0f)) return {n.v};  // NaN
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

}  // namespace lowrank::inline LOWRANK_ABI::kernels::scalar
