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

/// ggml's Q4_1: w = d · q + m, 32 weights in 20 bytes, 5 bits a weight.
///
/// | bytes | content |
/// |---|---|
/// | 0, 1 | half d = (max - min) / 15 |
/// | 2, 3 | half m = min |
/// | 4 … 19 | codes: weight j in the low nibble of byte j, weight j + 16 in the high nibble; q = min(15, ⌊(w - min) / d + 0.5⌋) |
///
/// Bytes equal ggml's quantize_row_q4_1_ref. In a block shorter than 32, min and max are those of the weights that exist.
struct Q4_1 {
  static constexpr std::string_view name = "Q4_1";
  static constexpr Index block = 32, block_bytes = 20;
  static constexpr std::array half_fields{0, 2};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q4_1>;

  static void describe(BlockSource& s) {
    s.order = CodeOrder::nibble_halves;
    for (int q = 0; q < 16; ++q) s.table[static_cast<std::size_t>(q)] = static_cast<float>(q);
    s.codes_at = 4;
    s.offset_at = 2;
    s.read_scales = HalfScales::read;
  }

  static constexpr auto encode_blocks = &kernels::QuantizeKernels::encode_range;
  static bool encode(const float* x, Index count, std::byte* to) {
    const auto [min, max] = std::minmax_element(x, x + count);
    const float d = (*max - *min) / 15.0f, low = *min;
    const float inverse = kernels::scalar::reciprocal(d);
    const Half scale{d}, offset{low};
    quant::store(to, scale);
    quant::store(to + 2, offset);
    for (Index j = 0; j < block / 2; ++j) {
      // NOLINTNEXTLINE(bugprone-incorrect-roundings): ggml's rule, for numbers that are not negative
      const auto code = [&](Index i) { return i < count ? std::min(15, static_cast<int>(rounded((x[i] - low) * inverse) + 0.5f)) : 0; };
      to[4 + j] = quant::nibbles(code(j), code(j + block / 2));
    }
    return is_finite(static_cast<float>(scale)) && is_finite(static_cast<float>(offset));
  }

  /// With an importance matrix, the bytes of ggml's quantize_q4_1: the scale is searched for.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from), m = quant::load<Half>(from + 2);
    for (Index j = 0; j < block / 2; ++j) {
      const int pair = static_cast<int>(from[4 + j]);
      out[j] = d * static_cast<float>(pair & 15) + m;
      out[j + block / 2] = d * static_cast<float>(pair >> 4) + m;
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/q4_1.inl>
#endif
