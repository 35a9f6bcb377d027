#pragma once

#include <cmath>
#include <cstddef>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::quant {

namespace detail {

/// Weights of sub-block j that exist.
LOWRANK_INLINE Index present(Index count, Index size, Index j) { return std::clamp<Index>(count - j * size, 0, size); }

/// What each sub-block asks for, and how much it counts.
struct AffineScales {
  std::array<float, 16> scales{}, minima{}, weights{};
};

LOWRANK_INLINE AffineScales affine_scales(const float* x, Index count, const AffineRule& rule, const BlockImportance* importance,
                                          std::uint8_t* codes) {
  AffineScales found;
  const float mean_square = importance ? rule.mean_square_unit * sum_of_squares(x, count) / static_cast<float>(count) : 0.0f;
  AffineSearch search = rule.search;
  if (importance) search = {rule.largest, -0.9f, 0.05f, 36};
  float w[32];
  for (Index j = 0; j * rule.size < count; ++j) {
    const Index at = j * rule.size, n = present(count, rule.size, j);
    const auto k = static_cast<std::size_t>(j);
    if (importance) {
      found.weights[k] = weigh(x + at, importance->numbers + at, n, mean_square, w);
    } else {
      const float mean = rule.adds_mean ? std::sqrt(sum_of_squares(x + at, n) / static_cast<float>(n)) : 0.0f;
      for (Index i = 0; i < n; ++i) w[i] = mean + std::abs(x[at + i]);
    }
    const ScaleAndMinimum best = search_affine(x + at, w, n, search, codes + at);
    found.scales[k] = best.scale, found.minima[k] = best.minimum;
  }
  return found;
}

/// Numbers not below 0 as codes 0 … levels times what is returned.
LOWRANK_INLINE Half scale_codes(const std::array<float, 16>& numbers, const float* weights, Index n, int levels, std::uint8_t* codes) {
  if (weights) return Half(search_positive(numbers.data(), weights, n, levels, codes));
  const float largest = std::max(0.0f, *std::max_element(numbers.begin(), numbers.begin() + n));
  const float inverse = largest > 0 ? static_cast<float>(levels) / largest : 0.0f;
  for (Index j = 0; j < n; ++j)
    codes[j] = static_cast<std::uint8_t>(rounded_code(inverse * numbers[static_cast<std::size_t>(j)], 0, levels));
  return Half(largest / static_cast<float>(levels));
}

/// Codes q with x ≈ d · scale · (q - half), where the scale of the sub-block is not 0; the others stay.
LOWRANK_INLINE void encode_symmetric(const float* x, Index count, int half, SymmetricBlock& block) {
  for (Index j = 0; 16 * j < count; ++j) {
    const float scale = static_cast<float>(block.d) * static_cast<float>(block.scales[static_cast<std::size_t>(j)]);
    if (scale == 0) continue;
    for (Index i = 16 * j; i < std::min(count, 16 * j + 16); ++i)
      block.codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(rounded_code(x[i] / scale, -half, half - 1) + half);
  }
}

/// The number of largest magnitude among the scales of sub-blocks.
LOWRANK_INLINE float extreme_scale(const std::array<float, 16>& scales) { return extreme(scales.data(), 16); }

}  // namespace detail

LOWRANK_INLINE AffineBlock affine_block(const float* x, Index count, const AffineRule& rule, const BlockImportance* importance) {
  AffineBlock block;
  const detail::AffineScales found = detail::affine_scales(x, count, rule, importance, block.codes.data());
  const float* const weights = importance ? found.weights.data() : nullptr;
  block.d = detail::scale_codes(found.scales, weights, 256 / rule.size, rule.levels, block.scales.data());
  block.dmin = detail::scale_codes(found.minima, weights, 256 / rule.size, rule.levels, block.minima.data());
  for (Index j = 0; j * rule.size < count; ++j) {
    const auto k = static_cast<std::size_t>(j);
    const float scale = static_cast<float>(block.d) * static_cast<float>(block.scales[k]);
    const float minimum = rounded(static_cast<float>(block.dmin) * static_cast<float>(block.minima[k]));
    if (scale == 0) continue;
    for (Index i = j * rule.size; i < std::min(count, (j + 1) * rule.size); ++i)
      block.codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(rounded_code((x[i] + minimum) / scale, 0, rule.largest));
  }
  return block;
}

LOWRANK_INLINE SymmetricBlock q3_block(const float* x, Index count, const BlockImportance* importance) {
  SymmetricBlock block;
  std::array<float, 16> scales{}, weights{};
  const float mean_square = importance ? 2 * sum_of_squares(x, count) / static_cast<float>(count) : 0.0f;
  float w[16];
  for (Index j = 0; 16 * j < count; ++j) {
    const Index at = 16 * j, n = detail::present(count, 16, j);
    const auto k = static_cast<std::size_t>(j);
    if (importance) {
      weights[k] = weigh(x + at, importance->numbers + at, n, mean_square, w);
      scales[k] = search_symmetric(x + at, w, n, 4, block.codes.data() + at);
    } else {
      scales[k] = descend_symmetric(x + at, n, 4, block.codes.data() + at);
    }
  }
  if (importance) {
    std::array<std::uint8_t, 16> codes{};
    block.d = Half(search_symmetric(scales.data(), weights.data(), 16, 32, codes.data()));
    for (std::size_t j = 0; j < 16; ++j) block.scales[j] = static_cast<std::int8_t>(codes[j] - 32);
  } else if (const float largest = detail::extreme_scale(scales); largest != 0) {
    const float inverse = -32.0f / largest;
    block.d = Half(1 / inverse);
    for (std::size_t j = 0; j < 16; ++j) block.scales[j] = static_cast<std::int8_t>(rounded_code(inverse * scales[j], -32, 31));
  } else {
    block.scales.fill(-32);  // ggml's block of zeros
  }
  detail::encode_symmetric(x, count, 4, block);
  return block;
}

LOWRANK_INLINE SymmetricBlock q6_block(const float* x, Index count, const BlockImportance* importance) {
  SymmetricBlock block;
  std::array<float, 16> scales{};
  float squares[16];
  for (Index j = 0; 16 * j < count; ++j) {
    const Index at = 16 * j, n = detail::present(count, 16, j);
    for (Index i = 0; i < n; ++i) squares[i] = x[at + i] * x[at + i];
    const float* const w = importance ? importance->numbers + at : squares;
    scales[static_cast<std::size_t>(j)] = search_symmetric(x + at, w, n, 32, block.codes.data() + at);
  }
  const float largest = detail::extreme_scale(scales);
  if (std::abs(largest) < least_magnitude) {
    block.codes.fill(0);
    return block;
  }
  const float inverse = -128.0f / largest;
  block.d = Half(1 / inverse);
  for (std::size_t j = 0; j < 16; ++j) block.scales[j] = static_cast<std::int8_t>(rounded_code(inverse * scales[j], -128, 127));
  detail::encode_symmetric(x, count, 32, block);
  return block;
}

LOWRANK_INLINE void pack_two_bits(const std::uint8_t* codes, std::byte* to) {
  for (Index part = 0; part < 2; ++part, codes += 128)
    for (Index i = 0; i < 32; ++i)
      *to++ = static_cast<std::byte>((codes[i] & 3) | (codes[i + 32] & 3) << 2 | (codes[i + 64] & 3) << 4 | (codes[i + 96] & 3) << 6);
}

}  // namespace lowrank::inline LOWRANK_ABI::quant
LOWRANK_IEEE_END
