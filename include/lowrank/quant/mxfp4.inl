#pragma once

#include <algorithm>
#include <cmath>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE bool Mxfp4::encode(const float* x, Index count, std::byte* to) {
  const float largest = kernels::scalar::largest_magnitude(x, count);
  const int exponent = largest > 0 ? std::clamp(static_cast<int>(std::floor(std::log2(largest))) - 2 + 127, 0, 254) : 0;
  const float half_scale = std::ldexp(1.0f, exponent - 128);
  const auto code = [&](Index i) {
    const float number = i < count ? x[i] : 0.0f;
    const auto distance = [&](float value) { return std::abs(rounded(value * half_scale) - number); };
    const auto* const nearest =
        std::min_element(doubled_e2m1.begin(), doubled_e2m1.end(), [&](float a, float b) { return distance(a) < distance(b); });
    return static_cast<int>(nearest - doubled_e2m1.begin());
  };
  to[0] = static_cast<std::byte>(exponent);
  for (Index j = 0; j < block / 2; ++j) to[1 + j] = quant::nibbles(code(j), code(j + block / 2));
  return true;
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
