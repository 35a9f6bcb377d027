#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/iq_grids.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {
namespace quant {

/// Eight weights of IQ1: out[i] = scale · (grid[i] ± 1/8).
inline void shifted_point(const std::int8_t* grid, bool is_below, float scale, float* out) {
  const float shift = is_below ? -0.125f : 0.125f;
  for (Index i = 0; i < 8; ++i) out[i] = scale * (static_cast<float>(grid[i]) + shift);
}

}  // namespace quant

/// ggml's IQ1_S, read only: w = d · (2 s + 1) · (grid ± 1/8), 256 weights in 50 bytes, 1.5625 bits a weight.
///
/// Half d; low eight bits of the indices of 32 points; for 32 weights each a word of 16 bits: four times three upper bits of an index, the
/// first in the lowest bits, the scale s in three bits, and the sign of the shift in the highest.
struct Iq1S {
  static constexpr std::string_view name = "IQ1_S";
  static constexpr Index block = 256, block_bytes = 50;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq1S>;

  static void decode(const std::byte* from, float* out) {
    const std::int8_t* const grid = quant::iq1_grid();
    const float d = quant::load<Half>(from);
    for (Index k = 0; k < 32; ++k) {
      const unsigned word = quant::load<std::uint16_t>(from + 34 + k / 4 * 2);
      const float scale = d * static_cast<float>(2 * (word >> 12 & 7u) + 1);
      const auto index = static_cast<Index>(static_cast<unsigned>(from[2 + k]) | (word >> 3 * (k % 4) & 7u) << 8);
      quant::shifted_point(grid + 8 * index, word >> 15 != 0, scale, out + 8 * k);
    }
  }
};

/// ggml's IQ1_M, read only: as IQ1_S with a scale for 16 weights and a shift for 8, 256 weights in 56 bytes, 1.75 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0 … 31 | low eight bits of the indices of 32 points |
/// | 32 … 47 | a nibble a point: three upper bits of its index, then the sign of its shift |
/// | 48 … 55 | four words of 16 bits: four scales of three bits each, and in the four highest bits a quarter of half d, the lowest first |
struct Iq1M {
  static constexpr std::string_view name = "IQ1_M";
  static constexpr Index block = 256, block_bytes = 56;
  static constexpr std::array<int, 0> half_fields{};  ///< its scale lies in four pieces
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq1M>;

  static unsigned word(const std::byte* from, Index i) { return quant::load<std::uint16_t>(from + 48 + 2 * i); }
  /// The scale of a block.
  static Half scale_of(const std::byte* from) {
    unsigned bits = 0;
    for (Index i = 0; i < 4; ++i) bits |= word(from, i) >> 12 << 4 * i;
    Half d;
    d.bits = static_cast<std::uint16_t>(bits);
    return d;
  }

  static void decode(const std::byte* from, float* out) {
    const std::int8_t* const grid = quant::iq1_grid();
    const float d = scale_of(from);
    for (Index k = 0; k < 32; ++k) {
      const unsigned s = word(from, k / 8) >> 3 * (k / 2 % 4) & 7u, nibble = static_cast<unsigned>(from[32 + k / 2]) >> 4 * (k % 2) & 15u;
      const auto index = static_cast<Index>(static_cast<unsigned>(from[k]) | (nibble & 7u) << 8);
      quant::shifted_point(grid + 8 * index, nibble >> 3 != 0, d * static_cast<float>(2 * s + 1), out + 8 * k);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
