#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include <lowrank/quant/row_blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's TQ1_0: w = d · t with t in {-1, 0, 1}, 256 weights in 54 bytes, 1.6875 bits a weight.
///
/// Bytes 0 … 51 hold digits of base 3: byte b is ⌈256 v / 243⌉ of five digits v, the first the most significant, so that digit n is the
/// whole part of 3 · frac(3^n b / 256). Bytes 0 … 31 hold weights 0 … 159, digit n of byte i that of weight 32 n + i; bytes 32 … 47 the
/// next 80 in the same way, 16 n + i; bytes 48 … 51 the last 16, 4 n + i with four digits. Bytes 52, 53: half d = max |w|.
/// Bytes equal ggml's quantize_row_tq1_0_ref.
struct Tq1 {
  static constexpr std::string_view name = "TQ1_0";
  static constexpr Index block = 256, block_bytes = 54;
  static constexpr std::array half_fields{52};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Tq1>;

  static bool encode(const float* x, Index count, std::byte* to);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from + 52);
    out = digits(from, 32, 5, d, out);
    out = digits(from + 32, 16, 5, d, out);
    digits(from + 48, 4, 4, d, out);
  }

 private:
  static float* digits(const std::byte* from, Index bytes, int count, float d, float* out) {
    for (unsigned n = 0, power = 1; n < static_cast<unsigned>(count); ++n, power *= 3)
      for (Index i = 0; i < bytes; ++i) {
        const unsigned digit = ((static_cast<unsigned>(from[i]) * power & 255u) * 3) >> 8;
        *out++ = static_cast<float>(static_cast<int>(digit) - 1) * d;
      }
    return out;
  }
};

/// ggml's TQ2_0: w = d · (q - 1), 256 weights in 66 bytes, 2.0625 bits a weight: codes of 2 bits as in Q2_K, then half d.
///
/// d = max |w|, t = w / d rounded. Bytes equal ggml's quantize_row_tq2_0_ref.
struct Tq2 {
  static constexpr std::string_view name = "TQ2_0";
  static constexpr Index block = 256, block_bytes = 66;
  static constexpr std::array half_fields{64};  ///< where a block has numbers in half precision
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Tq2>;

  static bool encode(const float* x, Index count, std::byte* to);

  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from + 64);
    for (Index run = 0; run < 8; ++run) {
      const std::byte* codes = from + run / 4 * 32;
      const int shift = static_cast<int>(run % 4 * 2);
      for (Index i = 0; i < 32; ++i) out[32 * run + i] = static_cast<float>(((static_cast<int>(codes[i]) >> shift) & 3) - 1) * d;
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/ternary.inl>
#endif
