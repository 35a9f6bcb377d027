#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/iq_grids.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {
namespace quant {

/// Signs of eight weights from seven bits: the eighth makes the number of minus signs even.
constexpr unsigned even_signs(unsigned bits) { return bits | static_cast<unsigned>(std::popcount(bits) & 1) << 7; }

/// A grid point times a scale: out[i] = ± scale · grid[i], with a minus where bit i of signs is set. Signs are as good as random, so that a
/// branch on each would cost more than all the rest.
template <Index Count>
void signed_point(const std::int8_t* grid, unsigned signs, float scale, float* out) {
  for (Index i = 0; i < Count; ++i) {
    const int minus = -static_cast<int>(signs >> i & 1u);
    out[i] = scale * static_cast<float>((grid[i] ^ minus) - minus);
  }
}

/// Scale of a half of 32 weights in IQ2_XS and IQ2_S: d · (½ + s) / 4 with s the low nibble for the first half, the high one for the other.
inline float iq2_scale(float d, std::byte pair, Index half) {
  return d * (0.5f + static_cast<float>((static_cast<unsigned>(pair) >> 4 * half) & 15u)) * 0.25f;
}

}  // namespace quant

/// ggml's IQ2_XXS, read only: 256 weights in 66 bytes, 2.0625 bits a weight; eight neighbours are a point of a grid with signs.
///
/// Half d, then eight bytes for 32 weights: four indices of points; a word with four times seven signs (quant::even_signs), the first in
/// the lowest bits, and a scale s in the four highest. w = ± d · (½ + s) / 4 · grid.
struct Iq2Xxs {
  static constexpr std::string_view name = "IQ2_XXS";
  static constexpr Index block = 256, block_bytes = 66;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq2Xxs>;

  static void decode(const std::byte* from, float* out) {
    const std::int8_t* const grid = quant::iq2_xxs_grid();
    const float d = quant::load<Half>(from);
    for (Index j = 0; j < 8; ++j) {
      const std::byte* points = from + 2 + 8 * j;
      const auto word = quant::load<std::uint32_t>(points + 4);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
      for (Index k = 0; k < 4; ++k)
        quant::signed_point<8>(grid + 8 * static_cast<Index>(points[k]), quant::even_signs(word >> 7 * k & 127u), scale,
                               out + 32 * j + 8 * k);
    }
  }
};

/// ggml's IQ2_XS, read only: 256 weights in 74 bytes, 2.3125 bits a weight; as IQ2_XXS with a larger grid.
///
/// Half d, then 32 words of 16 bits for eight weights each, the index of a point in the low nine bits and seven signs above, then a byte of
/// two scales for 32 weights (quant::iq2_scale).
struct Iq2Xs {
  static constexpr std::string_view name = "IQ2_XS";
  static constexpr Index block = 256, block_bytes = 74;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq2Xs>;

  static void decode(const std::byte* from, float* out) {
    const std::int8_t* const grid = quant::iq2_xs_grid();
    const float d = quant::load<Half>(from);
    for (Index k = 0; k < 32; ++k) {
      const unsigned word = quant::load<std::uint16_t>(from + 2 + 2 * k);
      const float scale = quant::iq2_scale(d, from[66 + k / 4], k % 4 / 2);
      quant::signed_point<8>(grid + 8 * static_cast<Index>(word & 511u), quant::even_signs(word >> 9), scale, out + 8 * k);
    }
  }
};

/// ggml's IQ2_S, read only: 256 weights in 82 bytes, 2.5625 bits a weight; as IQ2_XS with a larger grid and all eight signs.
///
/// | bytes | content |
/// |---|---|
/// | 0, 1 | half d |
/// | 2 … 33 | low eight bits of the indices of 32 points |
/// | 34 … 65 | signs of eight weights each |
/// | 66 … 73 | upper two bits of four indices each, the first in the lowest bits |
/// | 74 … 81 | two scales for 32 weights (quant::iq2_scale) |
struct Iq2S {
  static constexpr std::string_view name = "IQ2_S";
  static constexpr Index block = 256, block_bytes = 82;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq2S>;

  static void decode(const std::byte* from, float* out) {
    const std::int8_t* const grid = quant::iq2_s_grid();
    const float d = quant::load<Half>(from);
    for (Index k = 0; k < 32; ++k) {
      const unsigned upper = static_cast<unsigned>(from[66 + k / 4]) >> 2 * (k % 4) & 3u;
      const auto index = static_cast<Index>(static_cast<unsigned>(from[2 + k]) | upper << 8);
      const float scale = quant::iq2_scale(d, from[74 + k / 4], k % 4 / 2);
      quant::signed_point<8>(grid + 8 * index, static_cast<unsigned>(from[34 + k]), scale, out + 8 * k);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
