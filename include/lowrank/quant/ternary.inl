#pragma once

#include <cmath>
#include <cstdint>

#include <lowrank/quant/k_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

namespace quant {

/// Codes t + 1 of `count` ≤ 256 weights, in units of the largest magnitude, which is returned; those of missing ones are 1.
LOWRANK_INLINE Half ternary_codes(const float* x, Index count, std::uint8_t* codes) {
  const float largest = kernels::scalar::largest_magnitude(x, count), inverse = kernels::scalar::reciprocal(largest);
  for (Index i = 0; i < 256; ++i) codes[i] = static_cast<std::uint8_t>(i < count ? std::lround(x[i] * inverse) + 1 : 1);
  return Half(largest);
}

/// Digits of base 3 in bytes, the first the most significant of five: byte i of `bytes` takes codes[i + n · bytes], n < count.
LOWRANK_INLINE void pack_digits(const std::uint8_t* codes, Index bytes, int count, std::byte* to) {
  for (Index i = 0; i < bytes; ++i) {
    unsigned value = 0;
    for (Index n = 0; n < 5; ++n) value = 3 * value + (n < count ? codes[i + n * bytes] : 0u);
    to[i] = static_cast<std::byte>((value * 256 + 242) / 243);
  }
}

}  // namespace quant

LOWRANK_INLINE bool Tq1::encode(const float* x, Index count, std::byte* to) {
  std::uint8_t codes[256];
  const Half d = quant::ternary_codes(x, count, codes);
  quant::pack_digits(codes, 32, 5, to);
  quant::pack_digits(codes + 160, 16, 5, to + 32);
  quant::pack_digits(codes + 240, 4, 4, to + 48);
  quant::store(to + 52, d);
  return is_finite(static_cast<float>(d));
}

LOWRANK_INLINE bool Tq2::encode(const float* x, Index count, std::byte* to) {
  std::uint8_t codes[256];
  const Half d = quant::ternary_codes(x, count, codes);
  quant::pack_two_bits(codes, to);
  quant::store(to + 64, d);
  return is_finite(static_cast<float>(d));
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
