#pragma once

#include <array>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string_view>

#include <lowrank/quant/block_search.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's Q4_0: w = d · (q - 8), 32 weights in 18 bytes, 4.5 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0, 1 | half d = (the weight of largest magnitude) / -8, so that this weight is exact |
/// | 2 … 17 | codes: weight j in the low nibble of byte j, weight j + 16 in the high nibble; q = min(15, ⌊w / d + 8.5⌋) |
///
/// Bytes equal ggml's quantize_row_q4_0_ref.
struct Q4_0 {
  static constexpr std::string_view name = "Q4_0";
  static constexpr Index block = 32, block_bytes = 18;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q4_0>;

  static void describe(BlockSource& s) {
    s.order = CodeOrder::nibble_halves;
    for (int q = 0; q < 16; ++q) s.table[static_cast<std::size_t>(q)] = static_cast<float>(q - 8);
    s.codes_at = 2;
    s.read_scales = HalfScales::read;
  }

  static constexpr auto encode_blocks = &kernels::QuantizeKernels::encode_extreme;
  static bool encode(const float* x, Index count, std::byte* to) {
    const float* extreme = std::max_element(x, x + count, [](float a, float b) { return std::abs(a) < std::abs(b); });
    const float d = *extreme / -8.0f;
    const float inverse = kernels::scalar::reciprocal(d);
    const Half scale{d};
    quant::store(to, scale);
    for (Index j = 0; j < block / 2; ++j) {
      const auto code = [&](Index i) { return i < count ? std::min(15, static_cast<int>(rounded(x[i] * inverse) + 8.5f)) : 8; };
      to[2 + j] = quant::nibbles(code(j), code(j + block / 2));
    }
    return is_finite(static_cast<float>(scale));
  }

  /// With an importance matrix, the bytes of ggml's quantize_q4_0: the scale is searched for.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from);
    for (Index j = 0; j < block / 2; ++j) {
      const int pair = static_cast<int>(from[2 + j]);
      out[j] = d * static_cast<float>((pair & 15) - 8);
      out[j + block / 2] = d * static_cast<float>((pair >> 4) - 8);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/q4_0.inl>
#endif
