#pragma once

#include <algorithm>
#include <cmath>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

namespace quant {

/// The scale of n ≤ 32 weights of a block with that mean square.
LOWRANK_INLINE float iq4_scale(const float* x, const float* importance, Index n, float mean_square) {
  float w[32];
  if (importance)
    weigh(x, importance, n, 2 * mean_square, w);
  else
    for (Index i = 0; i < n; ++i) w[i] = x[i] * x[i];
  return search_values(x, w, n, iq4_table);
}

/// What decode_nibble_halves() reads, of n ≤ 32 weights. Codes of zeros where the scale is 0.
LOWRANK_INLINE void store_nibble_halves(const float* x, Index n, float scale, std::byte* codes) {
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  const auto code = [&](Index i) { return nearest_value(iq4_table, i < n ? inverse * x[i] : 0.0f); };
  for (Index j = 0; j < 16; ++j) codes[j] = nibbles(code(j), code(j + 16));
}

}  // namespace quant

LOWRANK_INLINE bool Iq4Nl::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  const float mean_square = quant::sum_of_squares(x, count) / static_cast<float>(count);
  const float scale = quant::iq4_scale(x, importance ? importance->numbers : nullptr, count, mean_square);
  const Half d(scale);
  quant::store(to, d);
  quant::store_nibble_halves(x, count, scale, to + 2);
  return is_finite(static_cast<float>(d));
}

LOWRANK_INLINE bool Iq4Xs::encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance) {
  const float mean_square = quant::sum_of_squares(x, count) / static_cast<float>(count);
  float scales[8] = {}, extreme = 0;
  const auto present = [count](Index j) { return std::clamp<Index>(count - 32 * j, 0, 32); };
  for (Index j = 0; 32 * j < count; ++j) {
    scales[j] = quant::iq4_scale(x + 32 * j, importance ? importance->numbers + 32 * j : nullptr, present(j), mean_square);
    if (std::abs(scales[j]) > std::abs(extreme)) extreme = scales[j];
  }
  const float d = -extreme / 32, inverse = d != 0 ? 1 / d : 0.0f;
  std::fill_n(to, 8, std::byte{0});
  quant::store(to, Half(d));
  std::uint16_t upper = 0;
  for (Index j = 0; j < 8; ++j) {
    const int scale = quant::rounded_code(inverse * scales[j], -32, 31), code = scale + 32;
    to[4 + j / 2] |= static_cast<std::byte>((code & 15) << 4 * (j % 2));
    upper = static_cast<std::uint16_t>(upper | code >> 4 << 2 * j);
    quant::store_nibble_halves(x + 32 * j, present(j), d * static_cast<float>(scale), to + 8 + 16 * j);
  }
  quant::store(to + 2, upper);
  return is_finite(static_cast<float>(Half(d)));
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
