#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/k_blocks.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's Q6_K: w = d · scale · (q - 32), 256 weights in 210 bytes, 6.5625 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0 … 127 | low four bits |
/// | 128 … 191 | upper two bits |
/// | 192 … 207 | signed scales of 16 sub-blocks of 16 weights |
/// | 208, 209 | half d |
///
/// Each half of 128 weights is four runs of 32. Byte i of the low bits holds weight i of run 0 (low nibble) and run 2 (high), byte
/// 32 + i those of runs 1 and 3; byte i of the upper bits holds run k's at bits 2k, 2k + 1.
struct Q6K {
  static constexpr std::string_view name = "Q6_K";
  static constexpr Index block = 256, block_bytes = 210;
  static constexpr std::array half_fields{208};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q6K>;

  /// The block of ggml's quantize_row_q6_K_ref, or with an importance matrix of quantize_q6_K; false: a scale beyond half precision.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance = nullptr);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from + 208);
    for (Index run = 0; run < 8; ++run) {
      const Index part = run / 4, k = run % 4;
      const std::byte *low = from + 64 * part + 32 * (k % 2), *upper = from + 128 + 32 * part;
      for (Index i = 0; i < 32; ++i) {
        const int code = ((static_cast<int>(low[i]) >> 4 * (k / 2)) & 15) | ((static_cast<int>(upper[i]) >> 2 * k) & 3) << 4;
        const auto scale = static_cast<float>(quant::load<std::int8_t>(from + 192 + 2 * run + i / 16));
        out[32 * run + i] = d * scale * static_cast<float>(code - 32);
      }
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/q6_k.inl>
#endif
