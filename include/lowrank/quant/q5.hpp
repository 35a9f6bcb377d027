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

/// 32 codes of 5 bits: 4 bytes with the fifth bit of weight j at bit j, then 16 bytes of low nibbles, weight j beside weight j + 16.
inline int five_bits(const std::byte* from, Index i) {
  const auto top = (load<std::uint32_t>(from) >> i) & 1u;
  const auto pair = static_cast<unsigned>(from[4 + i % 16]);
  return static_cast<int>((i < 16 ? pair & 15u : pair >> 4) | top << 4);
}

}  // namespace quant

/// ggml's Q5_0: w = d · (q - 16), 32 weights in 22 bytes: half d, 32 codes of 5 bits.
///
/// d = w / -16 for the w of largest magnitude, q = min(31, ⌊w / d + 16.5⌋). Bytes equal ggml's quantize_row_q5_0_ref.
struct Q5_0 {
  static constexpr std::string_view name = "Q5_0";
  static constexpr Index block = 32, block_bytes = 22;
  static constexpr std::array half_fields{0};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q5_0>;

  static bool encode(const float* x, Index count, std::byte* to);
  /// With an importance matrix, the bytes of ggml's quantize_q5_0: the scale is searched for.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from);
    for (Index i = 0; i < block; ++i) out[i] = d * static_cast<float>(quant::five_bits(from + 2, i) - 16);
  }
};

/// ggml's Q5_1: w = d · q + m, 32 weights in 24 bytes: half d, half m, 32 codes of 5 bits.
///
/// d = (max - min) / 31, m = min, q = ⌊(w - min) / d + 0.5⌋. Bytes equal ggml's quantize_row_q5_1_ref.
struct Q5_1 {
  static constexpr std::string_view name = "Q5_1";
  static constexpr Index block = 32, block_bytes = 24;
  static constexpr std::array half_fields{0, 2};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Q5_1>;

  static bool encode(const float* x, Index count, std::byte* to);
  /// With an importance matrix, the bytes of ggml's quantize_q5_1: the scale is searched for.
  static bool encode(const float* x, Index count, std::byte* to, const quant::BlockImportance* importance);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from), m = quant::load<Half>(from + 2);
    for (Index i = 0; i < block; ++i) out[i] = d * static_cast<float>(quant::five_bits(from + 4, i)) + m;
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/q5.inl>
#endif
