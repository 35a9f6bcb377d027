#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/block_search.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {
namespace quant {

/// The values of IQ4_NL and IQ4_XS: a non-linear code, denser near zero.
inline constexpr std::array<float, 16> iq4_table = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// 16 bytes of codes to 32 values: weight j in the low nibble of byte j, weight j + 16 in the high one.
inline void decode_nibble_halves(const std::byte* codes, const std::array<float, 16>& table, float scale, float* out) {
  for (Index j = 0; j < 16; ++j) {
    const auto pair = static_cast<unsigned>(codes[j]);
    out[j] = scale * table[pair & 15u];
    out[j + 16] = scale * table[pair >> 4];
  }
}

}  // namespace quant

/// ggml's IQ4_NL: w = d · T[q], 32 weights in 18 bytes: half d, 16 bytes of codes; 4.5 bits a weight.
struct Iq4Nl {
  static constexpr std::string_view name = "IQ4_NL";
  static constexpr Index block = 32, block_bytes = 18;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq4Nl>;

  /// The block of ggml's quantize_iq4_nl, with or without an importance matrix; false: a scale beyond half precision.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance = nullptr);

  static void describe(BlockSource& s) {
    s.order = CodeOrder::nibble_halves;
    s.table = quant::iq4_table;
    s.codes_at = 2;
    s.read_scales = HalfScales::read;
  }

  static void decode(const std::byte* from, float* out) {
    quant::decode_nibble_halves(from + 2, quant::iq4_table, quant::load<Half>(from), out);
  }
};

/// ggml's IQ4_XS: w = d · (scale - 32) · T[q], 256 weights in 136 bytes, 4.25 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0, 1 | half d |
/// | 2, 3 | upper two bits of the 8 scales, scale j at bits 2j, 2j + 1 |
/// | 4 … 7 | their low four bits, two a byte, the even one low |
/// | 8 … 135 | codes of 8 sub-blocks of 32, each as in IQ4_NL |
struct Iq4Xs {
  static constexpr std::string_view name = "IQ4_XS";
  static constexpr Index block = 256, block_bytes = 136;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Iq4Xs>;

  /// The block of ggml's quantize_iq4_xs, with or without an importance matrix; false: a scale beyond half precision.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance = nullptr);

  static void describe(BlockSource& s) {
    s.order = CodeOrder::nibble_halves;
    s.table = quant::iq4_table;
    s.codes_at = 8;
    s.read_scales = [](const BlockSource& source, Index first, Index count, float* scale, float* offset) {
      for (Index i = 0; i < count; ++i) {
        scale[i] = scale_of(source.block_of((first + i) * source.group), (first + i) % 8);
        offset[i] = -0.0f;
      }
    };
  }

  /// Scale of sub-block j = 0..7.
  static float scale_of(const std::byte* from, Index j) {
    const int upper = quant::load<std::uint16_t>(from + 2);
    const int scale = ((static_cast<int>(from[4 + j / 2]) >> 4 * (j % 2)) & 15) | ((upper >> 2 * j) & 3) << 4;
    return quant::load<Half>(from) * static_cast<float>(scale - 32);
  }

  static void decode(const std::byte* from, float* out) {
    for (Index j = 0; j < 8; ++j) quant::decode_nibble_halves(from + 8 + 16 * j, quant::iq4_table, scale_of(from, j), out + 32 * j);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/iq4.inl>
#endif
