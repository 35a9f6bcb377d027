#pragma once

#include <cstdint>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE bool Q4_1::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  float w[block];
  std::uint8_t codes[block] = {};
  quant::weigh(x, importance->numbers, count, importance->row_mean_square, w);
  const quant::ScaleAndMinimum best = quant::search_affine(x, w, count, {15, -0.9f, 0.05f, 36}, codes);
  const Half d(best.scale), m(-best.minimum);
  quant::store(to, d);
  quant::store(to + 2, m);
  for (Index j = 0; j < block / 2; ++j) to[4 + j] = quant::nibbles(codes[j], codes[j + block / 2]);
  return is_finite(static_cast<float>(d)) && is_finite(static_cast<float>(m));
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
