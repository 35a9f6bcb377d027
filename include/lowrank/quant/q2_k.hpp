#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include <lowrank/quant/k_blocks.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's Q2_K: w = d · scale · q - dmin · minimum, 256 weights in 84 bytes, 2.625 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0 … 15 | scale (low nibble) and minimum (high) of 16 sub-blocks of 16 weights |
/// | 16 … 79 | codes of 2 bits, 32 bytes for 128 weights: byte i holds weight i of run k = 0..3 at bits 2k, 2k + 1 |
/// | 80 … 83 | half d, half dmin |
struct Q2K {
  static constexpr std::string_view name = "Q2_K";
  static constexpr Index block = 256, block_bytes = 84;
  static constexpr std::array half_fields{80, 82};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q2K>;

  /// The block of ggml's quantize_row_q2_K_ref, or with an importance matrix of quantize_q2_K; false: a scale beyond half precision.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance = nullptr);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from + 80), dmin = quant::load<Half>(from + 82);
    for (Index j = 0; j < 16; ++j) {
      const auto pair = static_cast<int>(from[j]);
      const float scale = d * static_cast<float>(pair & 15), minimum = dmin * static_cast<float>(pair >> 4);
      const std::byte* codes = from + 16 + j / 8 * 32 + j % 2 * 16;
      const int shift = static_cast<int>(j / 2 % 4 * 2);
      for (Index i = 0; i < 16; ++i) out[16 * j + i] = scale * static_cast<float>((static_cast<int>(codes[i]) >> shift) & 3) - minimum;
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/q2_k.inl>
#endif
