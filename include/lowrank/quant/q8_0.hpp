#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's Q8_0: w = d · q, 32 weights in 34 bytes, 8.5 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0, 1 | half d = max |w| / 127 |
/// | 2 … 33 | signed codes; q = w / d rounded, halves away from zero |
///
/// Bytes equal ggml's quantize_row_q8_0_ref.
struct Q8_0 {
  static constexpr std::string_view name = "Q8_0";
  static constexpr Index block = 32, block_bytes = 34;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q8_0>;

  static void describe(BlockSource& s) {
    s.order = CodeOrder::bytes;
    s.codes_at = 2;
    s.read_scales = HalfScales::read;
  }

  static constexpr auto encode_blocks = &kernels::QuantizeKernels::encode_bytes;
  static bool encode(const float* x, Index count, std::byte* to) {
    const float d = kernels::scalar::largest_magnitude(x, count) / 127.0f;
    const float inverse = kernels::scalar::reciprocal(d);
    const Half scale{d};
    quant::store(to, scale);
    for (Index j = 0; j < block; ++j) {
      quant::store(to + 2 + j, static_cast<std::int8_t>(j < count ? std::round(x[j] * inverse) : 0.0f));
    }
    return is_finite(static_cast<float>(scale));
  }

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from);
    for (Index j = 0; j < block; ++j) out[j] = d * static_cast<float>(quant::load<std::int8_t>(from + 2 + j));
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
