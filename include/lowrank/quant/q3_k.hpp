#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include <lowrank/quant/k_blocks.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's Q3_K: w = d · (scale - 32) · (q - 4), 256 weights in 110 bytes, 3.4375 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0 … 31 | third bits: bit k of byte i is that of weight i of run k = 0..7, 32 weights each |
/// | 32 … 95 | low two bits as in Q2_K |
/// | 96 … 107 | 6-bit scales of 16 sub-blocks of 16 weights |
/// | 108, 109 | half d |
///
/// The low four bits of scale j are a nibble of byte j % 8 (the high one for j ≥ 8), its upper two are bits 2 (j / 4) of byte 8 + j % 4.
struct Q3K {
  static constexpr std::string_view name = "Q3_K";
  static constexpr Index block = 256, block_bytes = 110;
  static constexpr std::array half_fields{108};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q3K>;

  /// The block of ggml's quantize_row_q3_K_ref, or with an importance matrix of quantize_q3_K; false: a scale beyond half precision.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance = nullptr);

  /// The scale of sub-block j = 0..15, 0..63.
  static int scale_of(const std::byte* scales, Index j) {
    const auto byte = [scales](Index i) { return static_cast<int>(scales[i]); };
    return ((byte(j % 8) >> 4 * (j / 8)) & 15) | ((byte(8 + j % 4) >> 2 * (j / 4)) & 3) << 4;
  }

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from + 108);
    for (Index j = 0; j < 16; ++j) {
      const float scale = d * static_cast<float>(scale_of(from + 96, j) - 32);
      const std::byte *top = from + j % 2 * 16, *codes = from + 32 + j / 8 * 32 + j % 2 * 16;
      const int shift = static_cast<int>(j / 2 % 4 * 2), bit = static_cast<int>(j / 2);
      for (Index i = 0; i < 16; ++i) {
        const int code = ((static_cast<int>(codes[i]) >> shift) & 3) | ((static_cast<int>(top[i]) >> bit) & 1) << 2;
        out[16 * j + i] = scale * static_cast<float>(code - 4);
      }
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/q3_k.inl>
#endif
