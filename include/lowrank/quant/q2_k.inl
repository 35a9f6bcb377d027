#pragma once

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE bool Q2K::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  static constexpr quant::AffineRule rule{16, 3, 15, {3, -0.5f, 0.1f, 15, true}, false, 1};
  const quant::AffineBlock found = quant::affine_block(x, count, rule, importance);
  for (std::size_t j = 0; j < 16; ++j) to[j] = quant::nibbles(found.scales[j], found.minima[j]);
  quant::pack_two_bits(found.codes.data(), to + 16);
  quant::store(to + 80, found.d);
  quant::store(to + 82, found.dmin);
  return found.is_finite();
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
