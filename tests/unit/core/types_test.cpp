#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <unordered_set>

#include <lowrank/core/types.hpp>

using namespace lowrank;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Value of the bits of a small float with the given field widths, from the definition of IEEE 754.
double value_of(unsigned bits, int exponent_bits, int mantissa_bits) {
  const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1u << exponent_bits) - 1));
  const double mantissa = bits & ((1u << mantissa_bits) - 1);
  const double sign = (bits >> (exponent_bits + mantissa_bits)) & 1 ? -1 : 1;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa != 0 ? std::nan("") : sign * static_cast<double>(infinity);
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(1 + std::ldexp(mantissa, -mantissa_bits), exponent - bias);
}

template <class Small>
Small from_bits(unsigned bits) {
  Small small;
  small.bits = static_cast<std::uint16_t>(bits);
  return small;
}

/// All 65536 patterns: decoding is the definition, encoding gives the pattern back. Counts the patterns that are wrong.
template <class Small>
int wrong_patterns(int exponent_bits, int mantissa_bits) {
  int wrong = 0;
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const double expected = value_of(bits, exponent_bits, mantissa_bits);
    const float decoded = from_bits<Small>(bits);
    if (std::isnan(expected)) {
      wrong += !std::isnan(decoded) || !std::isnan(static_cast<float>(Small(decoded)));
    } else {
      wrong += std::bit_cast<std::uint32_t>(decoded) != std::bit_cast<std::uint32_t>(static_cast<float>(expected));
      wrong += Small(decoded).bits != bits;
    }
  }
  return wrong;
}

/// Between each two neighbours: just below the middle rounds down, just above rounds up, the middle to the even one.
/// `largest` is the pattern of the largest finite number; its upper neighbour is infinity, as if the exponent went on.
template <class Small>
int wrong_borders(unsigned largest, int exponent_bits, int mantissa_bits) {
  int wrong = 0;
  for (unsigned low = 0; low <= largest; ++low) {
    const double step = value_of(low, exponent_bits, mantissa_bits) - (low ? value_of(low - 1, exponent_bits, mantissa_bits) : 0);
    const double a = value_of(low, exponent_bits, mantissa_bits);
    const double b = low == largest ? a + step : value_of(low + 1, exponent_bits, mantissa_bits);
    const float middle = static_cast<float>((a + b) / 2);
    const unsigned even = low % 2 ? low + 1 : low;
    wrong += Small(middle).bits != even;
    wrong += Small(std::nextafter(middle, 0.0f)).bits != low;
    wrong += Small(std::nextafter(middle, infinity)).bits != low + 1;
    wrong += Small(-middle).bits != (even | 0x8000u);
  }
  return wrong;
}

}  // namespace

TEST_CASE("half: every pattern") { CHECK(wrong_patterns<Half>(5, 10) == 0); }
TEST_CASE("half: every border between two numbers") { CHECK(wrong_borders<Half>(0x7bff, 5, 10) == 0); }
TEST_CASE("bfloat16: every pattern") { CHECK(wrong_patterns<BFloat16>(8, 7) == 0); }
TEST_CASE("bfloat16: every border between two numbers") { CHECK(wrong_borders<BFloat16>(0x7f7f, 8, 7) == 0); }

TEST_CASE("half and bfloat16: overflow, underflow, NaN") {
  CHECK(Half(65504.0f).bits == 0x7bff);
  CHECK(Half(65519.996f).bits == 0x7bff);
  CHECK(Half(65520.0f).bits == 0x7c00);
  CHECK(Half(-1e30f).bits == 0xfc00);
  CHECK(Half(0x1p-26f).bits == 0);
  CHECK(Half(-0.0f).bits == 0x8000);
  CHECK(BFloat16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(BFloat16(-infinity).bits == 0xff80);
  CHECK(std::isnan(static_cast<float>(Half(std::nanf("")))));
  CHECK(std::isnan(static_cast<float>(BFloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("half and bfloat16 convert in constant expressions") {
  static_assert(Half(1.0f).bits == 0x3c00 && BFloat16(1.0f).bits == 0x3f80);
  static_assert(static_cast<float>(Half(0.1f)) == 0x1.998p-4f && static_cast<float>(BFloat16(0.1f)) == 0x1.9ap-4f);
}

TEST_CASE_TEMPLATE("half and bfloat16: arithmetic is that of float, rounded", T, Half, BFloat16) {
  static_assert(std::is_same_v<decltype(T() + T()), T> && std::is_same_v<decltype(T() - T()), T>);
  static_assert(std::is_same_v<decltype(T() * T()), T> && std::is_same_v<decltype(T() / T()), T> && std::is_same_v<decltype(-T()), T>);
  static_assert(std::is_same_v<decltype(T() * 2.0f), float> && std::is_same_v<decltype(2 - T()), float>);
  static_assert(std::is_same_v<decltype(T() + 1.0), double> && std::is_same_v<decltype(Half() / BFloat16()), float>);
  static_assert(T(3.0f) * T(0.5f) + T(1.0f) == 2.5f && (-T(2.0f)).bits == T(-2.0f).bits && -T(0.0f) == 0);
  unsigned bits = 1;
  int wrong = 0;
  for (int i = 0; i < 20000; ++i) {
    bits = bits * 1664525u + 1013904223u;
    const T a = from_bits<T>(bits >> 16), b = from_bits<T>(bits & 0xffffu);
    const float x = a, y = b;
    const auto differs = [](T given, float expected) { return given.bits != T(expected).bits && !std::isnan(expected); };
    wrong += differs(a + b, x + y) + differs(a - b, x - y) + differs(a * b, x * y) + differs(a / b, x / y) + differs(-a, -x);
    T sum = a, difference = a, product = a, quotient = a;
    sum += b, difference -= b, product *= y, quotient /= y;
    wrong += differs(sum, x + y) + differs(difference, x - y) + differs(product, x * y) + differs(quotient, x / y);
    wrong += differs(abs(a), std::abs(x)) + differs(sqrt(abs(a)), std::sqrt(std::abs(x)));
  }
  CHECK(wrong == 0);
  T counted(1.0f);
  counted += 1, counted *= 3;
  CHECK(counted == 6);
}

TEST_CASE_TEMPLATE("half and bfloat16: comparisons with each other, float, double and integers", T, Half, BFloat16) {
  const T one(1.0f), two(2.0f);
  CHECK((one == one && one != two && one < two && two > one && one <= 1 && 2 >= two));
  CHECK((one == 1 && 1u == one && one < 1.5f && 1.5 > one && one != 2L && two >= short{2}));
  CHECK((Half(2.0f) == BFloat16(2.0f) && Half(1.0f) < BFloat16(2.0f) && T(0.0f) == T(-0.0f)));
  const T nan = std::numeric_limits<T>::quiet_NaN();
  CHECK((nan != nan && !(nan < one) && !(nan == 1)));
  CHECK(std::hash<T>()(T(0.0f)) == std::hash<T>()(T(-0.0f)));
  CHECK(std::unordered_set<T>{one, two, one}.size() == 2);
}

TEST_CASE_TEMPLATE("half and bfloat16: limits", T, Half, BFloat16) {
  using Limits = std::numeric_limits<T>;
  static_assert(Limits::is_specialized && Limits::is_signed && !Limits::is_integer && Limits::has_infinity && Limits::radix == 2);
  CHECK(T(std::nextafter(static_cast<float>(Limits::max()), infinity)).bits == Limits::max().bits);
  CHECK(Limits::lowest() == -Limits::max());
  CHECK(Limits::max() == std::ldexp(2 - std::ldexp(1.0, 1 - Limits::digits), Limits::max_exponent - 1));
  CHECK(Limits::min() == std::ldexp(1.0, Limits::min_exponent - 1));
  CHECK(Limits::denorm_min() == std::ldexp(1.0, Limits::min_exponent - Limits::digits));
  CHECK(T(1.0f) + Limits::epsilon() == 1 + std::ldexp(1.0, 1 - Limits::digits));
  CHECK(Limits::digits10 == static_cast<int>((Limits::digits - 1) * std::log10(2.0)));
  CHECK(Limits::max_digits10 == static_cast<int>(std::ceil(1 + Limits::digits * std::log10(2.0))));
  CHECK(Limits::max_exponent10 == static_cast<int>(std::log10(static_cast<double>(Limits::max()))));
  CHECK(Limits::min_exponent10 == static_cast<int>(std::log10(static_cast<double>(Limits::min()))));
  CHECK(std::isinf(static_cast<float>(Limits::infinity())));
  CHECK(std::isnan(static_cast<float>(Limits::quiet_NaN())));
  CHECK(std::isnan(static_cast<float>(Limits::signaling_NaN())));
  CHECK(Limits::round_error() == 0.5f);
}

TEST_CASE("is_finite, is_normal and is_minus_infinity look at bits") {
  constexpr double large = std::numeric_limits<double>::infinity();
  CHECK((is_finite(0.0f) && is_finite(std::numeric_limits<float>::max()) && is_finite(std::numeric_limits<double>::lowest())));
  CHECK((!is_finite(infinity) && !is_finite(-large) && !is_finite(std::nanf("")) && !is_finite(std::nan(""))));
  CHECK((is_normal(-1.0f) && is_normal(std::numeric_limits<double>::min()) && !is_normal(std::numeric_limits<float>::denorm_min())));
  CHECK((is_minus_infinity(-infinity) && is_minus_infinity(-large) && !is_minus_infinity(infinity) && !is_minus_infinity(-1.0f)));
  CHECK((!is_normal(0.0f) && !is_normal(infinity) && !is_normal(std::nan(""))));
}

TEST_CASE("round_up and ceil_div at multiples and around them") {
  static_assert(round_up(0, 8) == 0 && round_up(1, 8) == 8 && round_up(8, 8) == 8 && round_up(9, 8) == 16);
  static_assert(ceil_div(0, 8) == 0 && ceil_div(1, 8) == 1 && ceil_div(8, 8) == 1 && ceil_div(9, 8) == 2);
}

TEST_CASE_TEMPLATE("is_nan is so of NaN alone", T, float, double) {
  using Limits = std::numeric_limits<T>;
  for (const T x : {Limits::quiet_NaN(), T(-Limits::quiet_NaN())}) CHECK(is_nan(x));
  for (const T x : {T(0.0f), T(-0.0f), Limits::infinity(), T(-Limits::infinity()), Limits::lowest(), Limits::denorm_min()})
    CHECK_FALSE(is_nan(x));
}
