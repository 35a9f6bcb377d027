#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <lowrank/quant/k_blocks.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {
namespace quant {

/// Scale and minimum of sub-block j = 0..7, 6 bits each, from 12 bytes.
///
/// For j < 4 they are the low six bits of bytes j and j + 4. For j ≥ 4 byte j + 4 holds their low nibbles (scale low, minimum high)
/// and the two top bits of bytes j - 4 and j their upper bits.
struct SixBitPair {
  int scale, minimum;

  SixBitPair(const std::byte* packed, Index j) {
    const auto byte = [packed](Index i) { return static_cast<int>(packed[i]); };
    scale = j < 4 ? byte(j) & 63 : (byte(j + 4) & 15) | (byte(j - 4) >> 6) << 4;
    minimum = j < 4 ? byte(j + 4) & 63 : (byte(j + 4) >> 4) | (byte(j) >> 6) << 4;
  }
};

}  // namespace quant

/// ggml's Q4_K: w = d · scale · q - dmin · minimum, 256 weights in 144 bytes, 4.5 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0 … 3 | half d, half dmin |
/// | 4 … 15 | scale and minimum of 8 sub-blocks of 32 weights, 6 bits each (SixBitPair) |
/// | 16 … 143 | codes, 32 bytes for two sub-blocks: the first in the low nibbles, the second in the high ones |
struct Q4K {
  static constexpr std::string_view name = "Q4_K";
  static constexpr Index block = 256, block_bytes = 144;
  static constexpr std::array half_fields{0, 2};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q4K>;

  /// The block of ggml's quantize_row_q4_K_ref, or with an importance matrix of quantize_q4_K; false: a scale beyond half precision.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance = nullptr);

  static void describe(BlockSource& s) {
    s.order = CodeOrder::nibble_halves;
    for (int q = 0; q < 16; ++q) s.table[static_cast<std::size_t>(q)] = static_cast<float>(q);
    s.codes_at = 16;
    s.run = 32;
    s.read_scales = [](const BlockSource& source, Index first, Index count, float* scale, float* offset) {
      for (Index i = 0; i < count; ++i) {
        const std::byte* from = source.block_of((first + i) * source.group);
        const quant::SixBitPair pair(from + 4, (first + i) % 8);
        scale[i] = quant::load<Half>(from) * static_cast<float>(pair.scale);
        offset[i] = -(quant::load<Half>(from + 2) * static_cast<float>(pair.minimum));
      }
    };
  }

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from), dmin = quant::load<Half>(from + 2);
    for (Index j = 0; j < 8; ++j) {
      const quant::SixBitPair pair(from + 4, j);
      const float scale = d * static_cast<float>(pair.scale), minimum = dmin * static_cast<float>(pair.minimum);
      const std::byte* codes = from + 16 + j / 2 * 32;
      const int shift = j % 2 == 0 ? 0 : 4;
      for (Index i = 0; i < 32; ++i) out[32 * j + i] = scale * static_cast<float>((static_cast<int>(codes[i]) >> shift) & 15) - minimum;
    }
  }
};

/// ggml's Q5_K: as Q4_K with a fifth bit, 256 weights in 176 bytes, 5.5 bits a weight.
///
/// Bytes 16 … 47 hold the fifth bits: bit j of byte i is that of weight i of sub-block j; the nibbles follow as in Q4_K.
struct Q5K {
  static constexpr std::string_view name = "Q5_K";
  static constexpr Index block = 256, block_bytes = 176;
  static constexpr std::array half_fields{0, 2};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q5K>;

  /// The block of ggml's quantize_row_q5_K_ref, or with an importance matrix of quantize_q5_K; false: a scale beyond half precision.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance = nullptr);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from), dmin = quant::load<Half>(from + 2);
    for (Index j = 0; j < 8; ++j) {
      const quant::SixBitPair pair(from + 4, j);
      const float scale = d * static_cast<float>(pair.scale), minimum = dmin * static_cast<float>(pair.minimum);
      const std::byte *top = from + 16, *codes = from + 48 + j / 2 * 32;
      const int shift = j % 2 == 0 ? 0 : 4;
      for (Index i = 0; i < 32; ++i) {
        const int code = ((static_cast<int>(codes[i]) >> shift) & 15) | ((static_cast<int>(top[i]) >> j) & 1) << 4;
        out[32 * j + i] = scale * static_cast<float>(code) - minimum;
      }
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/q4_k.inl>
#endif
