#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

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

TEST_CASE("round_up and ceil_div at multiples and around them") {
  static_assert(round_up(0, 8) == 0 && round_up(1, 8) == 8 && round_up(8, 8) == 8 && round_up(9, 8) == 16);
  static_assert(ceil_div(0, 8) == 0 && ceil_div(1, 8) == 1 && ceil_div(8, 8) == 1 && ceil_div(9, 8) == 2);
}
