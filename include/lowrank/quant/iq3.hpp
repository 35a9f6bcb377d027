#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/iq2.hpp>
#include <lowrank/quant/iq_grids.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's IQ3_XXS, read only: 256 weights in 98 bytes, 3.0625 bits a weight; four neighbours are a point of a grid with signs.
///
/// Half d, then the indices of 64 points, then for 32 weights each a word as in IQ2_XXS. w = ± d · (½ + s) / 2 · grid.
struct Iq3Xxs {
  static constexpr std::string_view name = "IQ3_XXS";
  static constexpr Index block = 256, block_bytes = 98;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq3Xxs>;

  static void decode(const std::byte* from, float* out) {
    const std::int8_t* const grid = quant::iq3_xxs_grid();
    const float d = quant::load<Half>(from);
    for (Index k = 0; k < 64; ++k) {
      const auto word = quant::load<std::uint32_t>(from + 66 + k / 8 * 4);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
      const unsigned signs = quant::even_signs(word >> 7 * (k / 2 % 4) & 127u) >> 4 * (k % 2);
      quant::signed_point<4>(grid + 4 * static_cast<Index>(from[2 + k]), signs, scale, out + 4 * k);
    }
  }
};

/// ggml's IQ3_S, read only: 256 weights in 110 bytes, 3.4375 bits a weight; as IQ3_XXS with a larger grid and all signs.
///
/// | bytes | content |
/// |---|---|
/// | 0, 1 | half d |
/// | 2 … 65 | low eight bits of the indices of 64 points |
/// | 66 … 73 | their ninth bits, eight a byte |
/// | 74 … 105 | signs of eight weights each |
/// | 106 … 109 | scales of 32 weights, two a byte, the first low: w = ± d · (1 + 2 s) · grid |
struct Iq3S {
  static constexpr std::string_view name = "IQ3_S";
  static constexpr Index block = 256, block_bytes = 110;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq3S>;

  static void decode(const std::byte* from, float* out) {
    const std::int8_t* const grid = quant::iq3_s_grid();
    const float d = quant::load<Half>(from);
    for (Index k = 0; k < 64; ++k) {
      const unsigned s = static_cast<unsigned>(from[106 + k / 16]) >> 4 * (k / 8 % 2) & 15u;
      const unsigned ninth = static_cast<unsigned>(from[66 + k / 8]) >> k % 8 & 1u;
      const auto index = static_cast<Index>(static_cast<unsigned>(from[2 + k]) | ninth << 8);
      const unsigned signs = static_cast<unsigned>(from[74 + k / 2]) >> 4 * (k % 2);
      quant::signed_point<4>(grid + 4 * index, signs, d * static_cast<float>(1 + 2 * s), out + 4 * k);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
