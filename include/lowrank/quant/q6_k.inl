#pragma once

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE bool Q6K::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  const quant::SymmetricBlock found = quant::q6_block(x, count, importance);
  for (std::size_t part = 0; part < 2; ++part) {
    const std::uint8_t* codes = found.codes.data() + 128 * part;
    for (std::size_t i = 0; i < 32; ++i) {
      const int q[] = {codes[i], codes[i + 32], codes[i + 64], codes[i + 96]};
      to[64 * part + i] = quant::nibbles(q[0] & 15, q[2] & 15);
      to[64 * part + 32 + i] = quant::nibbles(q[1] & 15, q[3] & 15);
      to[128 + 32 * part + i] = static_cast<std::byte>(q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6);
    }
  }
  for (std::size_t j = 0; j < 16; ++j) quant::store(to + 192 + j, found.scales[j]);
  quant::store(to + 208, found.d);
  return found.is_finite();
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
