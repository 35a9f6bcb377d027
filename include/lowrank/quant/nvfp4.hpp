#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>

#include <lowrank/quant/mxfp4.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// NVIDIA's NVFP4 in ggml's order, read only: w = s · E2M1[q], 64 weights in 36 bytes, 4.5 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0 … 3 | scale s of 4 sub-blocks of 16 weights, unsigned E4M3: 4 bits of exponent (bias 7), 3 of mantissa; 0x7f, NaN, is read as 0 |
/// | 4 … 35 | codes, 8 bytes a sub-block: weight j in the low nibble of byte j, weight j + 8 in the high one; bit 3 is the sign |
struct Nvfp4 {
  static constexpr std::string_view name = "NVFP4";
  static constexpr Index block = 64, block_bytes = 36;
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  static constexpr std::array<int, 0> half_fields{};  ///< where a block has numbers in half precision
  using Storage = RowBlocks<Nvfp4>;

  /// Half of a scale, for the doubled values.
  static float half_scale_of(std::byte code) {
    const int bits = static_cast<int>(code) & 0x7f, exponent = bits >> 3, mantissa = bits & 7;
    if (bits == 0x7f) return 0;
    return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -10) : std::ldexp(static_cast<float>(8 + mantissa), exponent - 11);
  }

  static void decode(const std::byte* from, float* out) {
    for (Index s = 0; s < 4; ++s, out += 16)
      for (Index j = 0; j < 8; ++j) {
        const auto pair = static_cast<unsigned>(from[4 + 8 * s + j]);
        out[j] = half_scale_of(from[s]) * Mxfp4::doubled_e2m1[pair & 15u];
        out[j + 8] = half_scale_of(from[s]) * Mxfp4::doubled_e2m1[pair >> 4];
      }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
