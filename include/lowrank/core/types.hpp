#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string_view>
#include <type_traits>

#include <lowrank/config.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// Sizes and positions: signed, so that differences and countdowns are safe.
using Index = std::ptrdiff_t;

/// std::bit_cast, by the compiler's own where the C++ library has none yet (LLVM 13's, which emscripten 3.1.6 brings).
#if defined(__cpp_lib_bit_cast)
using std::bit_cast;
#else
template <class To, class From>
constexpr To bit_cast(const From& from) {
  return __builtin_bit_cast(To, from);
}
#endif

namespace detail {
/// The bits of a float or a double, and those of its exponent.
template <class T>
struct FloatingBits;
template <>
struct FloatingBits<float> {
  using Word = std::uint32_t;
  static constexpr Word exponent = 0x7f800000u, lowest_exponent = 0x00800000u, minus_infinity = 0xff800000u;
};
template <>
struct FloatingBits<double> {
  using Word = std::uint64_t;
  static constexpr Word exponent = 0x7ff0000000000000u, lowest_exponent = 0x0010000000000000u, minus_infinity = 0xfff0000000000000u;
};
}  // namespace detail

/// Whether a number is neither infinite nor NaN, from its bits: with -ffast-math a compiler takes every float for finite, and
/// is_finite for true. By reference, since some take that for granted of a parameter, too.
template <class T>
constexpr bool is_finite(const T& number) {
  using Bits = detail::FloatingBits<T>;
  return (bit_cast<typename Bits::Word>(number) & Bits::exponent) != Bits::exponent;
}
/// Whether a number is finite, not 0 and not subnormal, from its bits.
template <class T>
constexpr bool is_normal(const T& number) {
  using Bits = detail::FloatingBits<T>;
  const auto exponent = bit_cast<typename Bits::Word>(number) & Bits::exponent;
  return exponent >= Bits::lowest_exponent && exponent != Bits::exponent;
}

/// Whether a number is −∞, from its bits.
template <class T>
constexpr bool is_minus_infinity(const T& number) {
  using Bits = detail::FloatingBits<T>;
  return bit_cast<typename Bits::Word>(number) == Bits::minus_infinity;
}

/// Whether a value is no number, from its bits.
template <class T>
constexpr bool is_nan(const T& number) {
  using Bits = detail::FloatingBits<T>;
  using Word = typename Bits::Word;
  constexpr Word sign = Bits::minus_infinity ^ Bits::exponent;
  return static_cast<Word>(bit_cast<Word>(number) & static_cast<Word>(~sign)) > Bits::exponent;
}

/// How a product computes: fp32 is exact to rounding; bf16 rounds weights and activations to bfloat16 and sums in fp32;
/// int8 rounds activations to 8 bits a block, less where a kernel has no 8-bit form (dense weights, many tokens). int8 is for inference: to
/// record a gradient through it is a ValueError.
enum class Compute { fp32, bf16, int8 };

/// The upper half of an IEEE single: 8 bits of exponent, 7 of mantissa.
struct BFloat16 {
  std::uint16_t bits = 0;

  constexpr BFloat16() = default;
  /// Rounds to nearest, ties to even; NaN stays NaN.
  constexpr explicit BFloat16(float value) {
    const auto word = bit_cast<std::uint32_t>(value);
    const bool is_nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? static_cast<std::uint16_t>((word >> 16) | 0x40u)
                  : static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
  constexpr operator float() const { return bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// IEEE half precision: 5 bits of exponent, 10 of mantissa.
struct Half {
  std::uint16_t bits = 0;

  constexpr Half() = default;
  /// Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN.
  constexpr explicit Half(float value) {
    const auto word = bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (word >> 16) & 0x8000u, magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
      bits = static_cast<std::uint16_t>(sign | 0x7e00u);
    } else if (magnitude >= 0x477ff000u) {  // rounds to 2^16 or more
      bits = static_cast<std::uint16_t>(sign | 0x7c00u);
    } else if (magnitude < 0x38800000u) {  // below 2^-14: subnormal, unit 2^-24; adding 2^-1 lets the FPU round
      const float shifted = bit_cast<float>(magnitude) + 0.5f;
      bits = static_cast<std::uint16_t>(sign | (bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    } else {
      const std::uint32_t rebased = magnitude - 0x38000000u;
      bits = static_cast<std::uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
    }
  }
  constexpr operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x0400u) return bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
    const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
    return bit_cast<float>(sign | bit_cast<std::uint32_t>(subnormal));
  }
};

/// The two types of 16 bits.
template <class T>
concept SmallFloat = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

/// Arithmetic of two numbers of one 16-bit type: in float, rounded to the type. With any other number, a float among them, a 16-bit number
/// counts as the float that it is, in comparisons too.
template <SmallFloat T>
constexpr T operator+(T a, T b) {
  return T(static_cast<float>(a) + static_cast<float>(b));
}
template <SmallFloat T>
constexpr T operator-(T a, T b) {
  return T(static_cast<float>(a) - static_cast<float>(b));
}
template <SmallFloat T>
constexpr T operator*(T a, T b) {
  return T(static_cast<float>(a) * static_cast<float>(b));
}
template <SmallFloat T>
constexpr T operator/(T a, T b) {
  return T(static_cast<float>(a) / static_cast<float>(b));
}
template <SmallFloat T>
constexpr T operator-(T a) {
  a.bits = static_cast<std::uint16_t>(a.bits ^ 0x8000u);
  return a;
}
/// a ← a + b, computed in float and rounded once; so for the other three.
template <SmallFloat T>
constexpr T& operator+=(T& a, float b) {
  return a = T(static_cast<float>(a) + b);
}
template <SmallFloat T>
constexpr T& operator-=(T& a, float b) {
  return a = T(static_cast<float>(a) - b);
}
template <SmallFloat T>
constexpr T& operator*=(T& a, float b) {
  return a = T(static_cast<float>(a) * b);
}
template <SmallFloat T>
constexpr T& operator/=(T& a, float b) {
  return a = T(static_cast<float>(a) / b);
}
/// |a|, which Eigen calls without a namespace.
template <SmallFloat T>
constexpr T abs(T a) {
  a.bits = static_cast<std::uint16_t>(a.bits & 0x7fffu);
  return a;
}
/// √a, which Eigen calls without a namespace.
template <SmallFloat T>
T sqrt(T a) {
  return T(std::sqrt(static_cast<float>(a)));
}

namespace detail {
template <class T>
constexpr T from_bits(std::uint16_t bits) {
  T value;
  value.bits = bits;
  return value;
}

/// What std::numeric_limits says of both types.
template <class T>
struct SmallFloatLimits : std::numeric_limits<float> {
  static constexpr bool is_iec559 = true;
  static constexpr T round_error() noexcept { return T(0.5f); }
};
}  // namespace detail

/// Smallest multiple of unit that is at least value; both positive.
constexpr Index round_up(Index value, Index unit) { return (value + unit - 1) / unit * unit; }
/// value / unit, rounded up.
constexpr Index ceil_div(Index value, Index unit) { return (value + unit - 1) / unit; }

}  // namespace lowrank::inline LOWRANK_ABI

template <>
struct std::numeric_limits<lowrank::Half> : lowrank::detail::SmallFloatLimits<lowrank::Half> {
  static constexpr int digits = 11, digits10 = 3, max_digits10 = 5;
  static constexpr int min_exponent = -13, min_exponent10 = -4, max_exponent = 16, max_exponent10 = 4;
  static constexpr lowrank::Half min() noexcept { return lowrank::detail::from_bits<lowrank::Half>(0x0400); }
  static constexpr lowrank::Half lowest() noexcept { return lowrank::detail::from_bits<lowrank::Half>(0xfbff); }
  static constexpr lowrank::Half max() noexcept { return lowrank::detail::from_bits<lowrank::Half>(0x7bff); }
  static constexpr lowrank::Half epsilon() noexcept { return lowrank::detail::from_bits<lowrank::Half>(0x1400); }
  static constexpr lowrank::Half infinity() noexcept { return lowrank::detail::from_bits<lowrank::Half>(0x7c00); }
  static constexpr lowrank::Half quiet_NaN() noexcept { return lowrank::detail::from_bits<lowrank::Half>(0x7e00); }
  static constexpr lowrank::Half signaling_NaN() noexcept { return lowrank::detail::from_bits<lowrank::Half>(0x7d00); }
  static constexpr lowrank::Half denorm_min() noexcept { return lowrank::detail::from_bits<lowrank::Half>(1); }
};

template <>
struct std::numeric_limits<lowrank::BFloat16> : lowrank::detail::SmallFloatLimits<lowrank::BFloat16> {
  static constexpr int digits = 8, digits10 = 2, max_digits10 = 4;
  static constexpr int min_exponent = -125, min_exponent10 = -37, max_exponent = 128, max_exponent10 = 38;
  static constexpr lowrank::BFloat16 min() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(0x0080); }
  static constexpr lowrank::BFloat16 lowest() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(0xff7f); }
  static constexpr lowrank::BFloat16 max() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(0x7f7f); }
  static constexpr lowrank::BFloat16 epsilon() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(0x3c00); }
  static constexpr lowrank::BFloat16 infinity() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(0x7f80); }
  static constexpr lowrank::BFloat16 quiet_NaN() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(0x7fc0); }
  static constexpr lowrank::BFloat16 signaling_NaN() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(0x7fa0); }
  static constexpr lowrank::BFloat16 denorm_min() noexcept { return lowrank::detail::from_bits<lowrank::BFloat16>(1); }
};

/// Equal numbers, 0 and -0 among them, have one hash.
template <lowrank::SmallFloat T>
struct std::hash<T> {
  std::size_t operator()(T value) const noexcept { return (value.bits & 0x7fffu) == 0 ? 0 : std::size_t{value.bits}; }
};
LOWRANK_IEEE_END
