#pragma once

#include <algorithm>
#include <cstdint>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

namespace quant {

/// Half d, half dmin and the twelve bytes of eight SixBitPairs.
LOWRANK_INLINE void store_six_bit_scales(const AffineBlock& found, std::byte* to) {
  store(to, found.d);
  store(to + 2, found.dmin);
  const auto &s = found.scales, &m = found.minima;
  for (std::size_t j = 0; j < 4; ++j) {
    to[4 + j] = static_cast<std::byte>(s[j] | s[j + 4] >> 4 << 6);
    to[8 + j] = static_cast<std::byte>(m[j] | m[j + 4] >> 4 << 6);
    to[12 + j] = nibbles(s[j + 4] & 15, m[j + 4] & 15);
  }
}

/// Low four bits of 256 codes, 32 bytes for two sub-blocks.
LOWRANK_INLINE void pack_low_nibbles(const std::uint8_t* codes, std::byte* to) {
  for (Index part = 0; part < 4; ++part, codes += 64)
    for (Index i = 0; i < 32; ++i) *to++ = nibbles(codes[i] & 15, codes[i + 32] & 15);
}

}  // namespace quant

LOWRANK_INLINE bool Q4K::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  static constexpr quant::AffineRule rule{32, 15, 63, {15, -1.0f, 0.1f, 20}, true, 2};
  const quant::AffineBlock found = quant::affine_block(x, count, rule, importance);
  quant::store_six_bit_scales(found, to);
  quant::pack_low_nibbles(found.codes.data(), to + 16);
  return found.is_finite();
}

LOWRANK_INLINE bool Q5K::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  static constexpr quant::AffineRule rule{32, 31, 63, {31, -0.5f, 0.1f, 15}, true, 2};
  const quant::AffineBlock found = quant::affine_block(x, count, rule, importance);
  quant::store_six_bit_scales(found, to);
  std::fill_n(to + 16, 32, std::byte{0});
  for (std::size_t i = 0; i < 256; ++i) to[16 + i % 32] |= static_cast<std::byte>(found.codes[i] >> 4 << i / 32);
  quant::pack_low_nibbles(found.codes.data(), to + 48);
  return found.is_finite();
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
