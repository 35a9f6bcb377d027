#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/table_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// bitsandbytes' 4-bit float: sign and {0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1} times the block's largest magnitude.
///
/// Not OCP's E2M1: the codes are permuted, and the smallest magnitude is 1/192 of the largest where E2M1 has 1/12. Bit 3 is the sign,
/// set iff t < 0, so a small negative weight becomes -0. Thresholds are those of bitsandbytes' CUDA kernel (the first and the sixth
/// lie 14 and 6 ulp beside the midpoints); a tie takes the smaller magnitude. NF4 has less error on weights; this one reads files.
/// Storage and the cases that differ from bitsandbytes' CPU path: TableBlocks.
template <int Block = 64, class ScaleStorage = PlainScales>
struct Fp4 {
  static_assert(quant::is_block_size(Block), "Fp4<Block>: the block must be a power of two from 32 to 4096, for example Fp4<64>");

  static constexpr std::string_view name = ScaleStorage::is_double_quantized ? "fp4-dq" : "fp4";
  static constexpr std::string_view quant_type = "fp4";  // as bitsandbytes' files spell it
  static constexpr Index block = Block;
  static constexpr double bits_per_weight = 4 + ScaleStorage::bits_per_block / Block;
  using Scales = ScaleStorage;
  using Storage = TableBlocks<Fp4>;

  static constexpr std::array<float, 16> table = {
      0.0f,  0.0625f / 12.0f,  8.0f / 12.0f,  1.0f,  4.0f / 12.0f,  0.5f,  2.0f / 12.0f,  0.25f,   // the magnitudes
      -0.0f, -0.0625f / 12.0f, -8.0f / 12.0f, -1.0f, -4.0f / 12.0f, -0.5f, -2.0f / 12.0f, -0.25f,  // and their negatives
  };
  static constexpr std::array<float, 7> thresholds = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f};
  static constexpr std::array<std::uint8_t, 8> ascending = {0, 1, 6, 7, 4, 5, 2, 3};  // codes by magnitude

  static constexpr kernels::CodeRule rule = kernels::signed_rule(thresholds, ascending, table);

  /// The sign of t = w / absmax and the number of thresholds below |t|, by bisection.
  static constexpr std::uint8_t encode(float t) {
    const float magnitude = t < 0 ? -t : t;
    unsigned rank = magnitude > thresholds[3] ? 4 : 0;
    rank += magnitude > thresholds[rank + 1] ? 2 : 0;
    rank += magnitude > thresholds[rank] ? 1 : 0;
    return static_cast<std::uint8_t>(ascending[rank] | (t < 0 ? 8 : 0));
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
