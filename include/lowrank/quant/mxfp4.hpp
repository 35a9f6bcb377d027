#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>

#include <lowrank/quant/iq4.hpp>
#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// OCP's MXFP4 in ggml's order: w = 2^(e - 127) · E2M1[q], 32 weights in 17 bytes, 4.25 bits a weight.
///
/// Byte 0 is the exponent e, bytes 1 … 16 the codes: weight j in the low nibble of byte j, weight j + 16 in the high one. Bit 3 of a
/// code is its sign. OCP calls e = 255 NaN; ggml reads it as 2^128 and so does this, in halves: 2^127 · (2 · E2M1).
/// Written with e - 127 = ⌊log2 max |w|⌋ - 2 and the nearest codes, as ggml's quantize_row_mxfp4_ref.
struct Mxfp4 {
  static constexpr std::string_view name = "MXFP4";
  static constexpr Index block = 32, block_bytes = 17;
  static constexpr std::array<int, 0> half_fields{};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Mxfp4>;

  static bool encode(const float* x, Index count, std::byte* to);

  static void describe(BlockSource& s) {
    s.order = CodeOrder::nibble_halves;
    s.table = doubled_e2m1;
    s.codes_at = 1;
    s.read_scales = [](const BlockSource& source, Index first, Index count, float* scale, float* offset) {
      for (Index i = 0; i < count; ++i) {
        scale[i] = std::ldexp(1.0f, static_cast<int>(source.block_of((first + i) * block)[0]) - 128);
        offset[i] = -0.0f;
      }
    };
  }

  static constexpr std::array<float, 16> doubled_e2m1 = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

  static void decode(const std::byte* from, float* out) {
    const float half_scale = std::ldexp(1.0f, static_cast<int>(from[0]) - 128);
    quant::decode_nibble_halves(from + 1, doubled_e2m1, half_scale, out);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/mxfp4.inl>
#endif
