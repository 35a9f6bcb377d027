#pragma once

#include <algorithm>
#include <cmath>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

namespace quant {

/// What five_bits() reads.
LOWRANK_INLINE void store_five_bits(const std::uint8_t* codes, std::byte* to) {
  std::uint32_t top = 0;
  for (unsigned i = 0; i < 32; ++i) top |= static_cast<std::uint32_t>(codes[i] >> 4) << i;
  store(to, top);
  for (Index j = 0; j < 16; ++j) to[4 + j] = nibbles(codes[j] & 15, codes[j + 16] & 15);
}

}  // namespace quant

LOWRANK_INLINE bool Q5_0::encode(const float* x, Index count, std::byte* to) {
  const float* extreme = std::max_element(x, x + count, [](float a, float b) { return std::abs(a) < std::abs(b); });
  const float d = *extreme / -16.0f, inverse = kernels::scalar::reciprocal(d);
  const Half scale{d};
  std::uint8_t codes[block];
  std::fill_n(codes, block, std::uint8_t{16});
  // NOLINTNEXTLINE(bugprone-incorrect-roundings): ggml's rule, for numbers that are not negative
  for (Index i = 0; i < count; ++i) codes[i] = static_cast<std::uint8_t>(std::min(31, static_cast<int>(rounded(x[i] * inverse) + 16.5f)));
  quant::store(to, scale);
  quant::store_five_bits(codes, to + 2);
  return is_finite(static_cast<float>(scale));
}

LOWRANK_INLINE bool Q5_0::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  float w[block];
  std::uint8_t codes[block] = {};
  quant::weigh(x, importance->numbers, count, importance->row_mean_square, w);
  const Half d(quant::search_symmetric(x, w, count, 16, codes));
  quant::store(to, d);
  quant::store_five_bits(codes, to + 2);
  return is_finite(static_cast<float>(d));
}

LOWRANK_INLINE bool Q5_1::encode(const float* x, Index count, std::byte* to) {
  const auto [min, max] = std::minmax_element(x, x + count);
  const float d = (*max - *min) / 31.0f, low = *min, inverse = kernels::scalar::reciprocal(d);
  const Half scale{d}, offset{low};
  std::uint8_t codes[block] = {};
  // NOLINTNEXTLINE(bugprone-incorrect-roundings): ggml's rule, for numbers that are not negative
  for (Index i = 0; i < count; ++i)
    codes[i] = static_cast<std::uint8_t>(std::min(31, static_cast<int>(rounded((x[i] - low) * inverse) + 0.5f)));
  quant::store(to, scale);
  quant::store(to + 2, offset);
  quant::store_five_bits(codes, to + 4);
  return is_finite(static_cast<float>(scale)) && is_finite(static_cast<float>(offset));
}

LOWRANK_INLINE bool Q5_1::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  float w[block];
  std::uint8_t codes[block] = {};
  quant::weigh(x, importance->numbers, count, importance->row_mean_square, w);
  const quant::ScaleAndMinimum best = quant::search_affine(x, w, count, {31, -0.9f, 0.05f, 36}, codes);
  const Half d(best.scale), m(-best.minimum);
  quant::store(to, d);
  quant::store(to + 2, m);
  quant::store_five_bits(codes, to + 4);
  return is_finite(static_cast<float>(d)) && is_finite(static_cast<float>(m));
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
