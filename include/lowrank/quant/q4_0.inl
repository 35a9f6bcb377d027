#pragma once

#include <cstdint>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE bool Q4_0::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  float w[block];
  std::uint8_t codes[block] = {};
  quant::weigh(x, importance->numbers, count, importance->row_mean_square, w);
  const Half d(quant::search_symmetric(x, w, count, 8, codes));
  quant::store(to, d);
  for (Index j = 0; j < block / 2; ++j) to[2 + j] = quant::nibbles(codes[j], codes[j + block / 2]);
  return is_finite(static_cast<float>(d));
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
