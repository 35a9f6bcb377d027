#pragma once

/// How the blocks of 256 weights of ggml's K formats are found: scales of sub-blocks by search, those scales in few bits, then the codes.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <lowrank/core/types.hpp>
#include <lowrank/quant/block_search.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::quant {

/// Q2_K, Q4_K, Q5_K: sub-blocks of `size` weights, codes 0 … largest, scales and minima 0 … levels.
struct AffineRule {
  Index size;
  int largest, levels;
  AffineSearch search;     ///< without an importance matrix, whose search is finer
  bool adds_mean;          ///< the weight of an error is then sqrt(mean x²) + |x| rather than |x|
  float mean_square_unit;  ///< with one, the mean square of the block counts this often
};

/// w = d · scale · q - dmin · minimum.
struct AffineBlock {
  Half d, dmin;
  std::array<std::uint8_t, 16> scales{}, minima{};
  std::array<std::uint8_t, 256> codes{};

  bool is_finite() const { return lowrank::is_finite(static_cast<float>(d)) && lowrank::is_finite(static_cast<float>(dmin)); }
};

/// The block of `count` ≤ 256 weights; missing ones have no influence.
AffineBlock affine_block(const float* x, Index count, const AffineRule& rule, const BlockImportance* importance);

/// Q3_K and Q6_K: 16 sub-blocks of 16 weights. w = d · scale · (q - half), scale signed.
struct SymmetricBlock {
  Half d;
  std::array<std::int8_t, 16> scales{};
  std::array<std::uint8_t, 256> codes{};

  bool is_finite() const { return lowrank::is_finite(static_cast<float>(d)); }
};
/// The block of `count` weights that ggml's search finds, for Q3_K.
SymmetricBlock q3_block(const float* x, Index count, const BlockImportance* importance);
SymmetricBlock q6_block(const float* x, Index count, const BlockImportance* importance);  ///< The same for Q6_K.

/// 256 codes of two bits as Q2_K, Q3_K and TQ2_0 store them: byte i of 32 holds weight i of each of four runs, the first in the lowest
/// bits.
void pack_two_bits(const std::uint8_t* codes, std::byte* to);

}  // namespace lowrank::inline LOWRANK_ABI::quant
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/k_blocks.inl>
#endif
