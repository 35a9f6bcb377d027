#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/table_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// NormalFloat4: 16 quantiles of the normal distribution times the block's largest magnitude.
///
/// The values: 8 points Φ⁻¹ of linspace(0.9677083, 0.5, 9) and 7 of the same with 8 points negated, their ends at 0.5 dropped, and 0,
/// all divided by the largest. 4 + 32 / Block bits a weight, with DoubleQuant 4 + 8 / Block + 32 / (256 Block). The thresholds are
/// those of bitsandbytes' CUDA kernel: the midpoints, save four that lie 1 ulp beside; a tie takes the lower code. Storage and
/// the cases that differ from bitsandbytes' CPU path: TableBlocks. Dettmers et al. 2023, "QLoRA", section 3.
template <int Block = 64, class ScaleStorage = PlainScales>
struct Nf4 {
  static_assert(quant::is_block_size(Block), "Nf4<Block>: the block must be a power of two from 32 to 4096, for example Nf4<64>");

  static constexpr std::string_view name = ScaleStorage::is_double_quantized ? "nf4-dq" : "nf4";
  static constexpr std::string_view quant_type = "nf4";  // as bitsandbytes' files spell it
  static constexpr Index block = Block;
  static constexpr double bits_per_weight = 4 + ScaleStorage::bits_per_block / Block;
  using Scales = ScaleStorage;
  using Storage = TableBlocks<Nf4>;

  static constexpr std::array<float, 16> table = {
      -1.0f,
      -0.6961928009986877f,
      -0.5250730514526367f,
      -0.39491748809814453f,
      -0.28444138169288635f,
      -0.18477343022823334f,
      -0.09105003625154495f,
      0.0f,
      0.07958029955625534f,
      0.16093020141124725f,
      0.24611230194568634f,
      0.33791524171829224f,
      0.44070982933044434f,
      0.5626170039176941f,
      0.7229568362236023f,
      1.0f,
  };
  static constexpr std::array<float, 15> thresholds = {
      -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
      -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
      0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f,
  };

  static constexpr kernels::CodeRule rule = kernels::ordered_rule(thresholds, table);

  /// The number of thresholds below t = w / absmax, by bisection.
  static constexpr std::uint8_t encode(float t) {
    unsigned code = t > thresholds[7] ? 8 : 0;
    code += t > thresholds[code + 3] ? 4 : 0;
    code += t > thresholds[code + 1] ? 2 : 0;
    code += t > thresholds[code] ? 1 : 0;
    return static_cast<std::uint8_t>(code);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
