#pragma once

#include <algorithm>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE bool Q3K::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  const quant::SymmetricBlock found = quant::q3_block(x, count, importance);
  std::fill_n(to, block_bytes, std::byte{0});
  for (std::size_t i = 0; i < 256; ++i) to[i % 32] |= static_cast<std::byte>(found.codes[i] >> 2 << i / 32);
  quant::pack_two_bits(found.codes.data(), to + 32);
  for (std::size_t j = 0; j < 16; ++j) {
    const int scale = found.scales[j] + 32;
    to[96 + j % 8] |= static_cast<std::byte>((scale & 15) << 4 * (j / 8));
    to[104 + j % 4] |= static_cast<std::byte>(scale >> 4 << 2 * (j / 4));
  }
  quant::store(to + 108, found.d);
  return found.is_finite();
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
