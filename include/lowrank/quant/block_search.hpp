#pragma once

/// Searches for the scale of a few weights with codes of few bits: those of ggml, so that files come out byte for byte as llama.cpp's.
///
/// All of them minimize Σ w_i (x_i - value of code_i)², where w says how much an error counts. Sums run from the first element to the last
/// and every product is rounded before it is added, so that all builds give the same bytes.

#include <algorithm>
#include <array>
#include <cstdint>

#include <lowrank/kernels/format/blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::quant {

/// How a row's errors are weighed: of an importance matrix the numbers of a block's columns, and the mean square of the whole row.
struct BlockImportance {
  const float* numbers;
  float row_mean_square;
};

/// Numbers whose largest magnitude is below this count as zeros.
inline constexpr float least_magnitude = 1e-15f;

/// The integer nearest to t within [low, high], halves to even: added to 1.5 · 2^23, its last bit is worth one.
inline int rounded_code(float t, int low, int high) {
  const float inside = std::min(std::max(static_cast<float>(low), t), static_cast<float>(high));  // NaN becomes low
  return bit_cast<int>(inside + 12582912.0f) - 0x4B400000;
}

/// x ≈ scale · q - minimum.
struct ScaleAndMinimum {
  float scale = 0, minimum = 0;
};

/// How search_affine() looks for it: codes of x at 1 / (range / (largest + first + k · step)), k = 0 … steps, each refitted.
struct AffineSearch {
  int largest;
  float first, step;
  int steps;
  bool by_magnitude = false;  ///< the error is Σ w |x - …|
};

/// The best scale and minimum (not below 0) with codes 0 … largest of n ≥ 1 numbers; their codes to `codes`.
ScaleAndMinimum search_affine(const float* x, const float* w, Index n, const AffineSearch& search, std::uint8_t* codes);

/// The best scale for x ≈ scale · (q - half) with q from 0 to 2 half - 1, of 19 starts around the largest magnitude.
float search_symmetric(const float* x, const float* w, Index n, int half, std::uint8_t* codes);

/// The same with w = x², from one start, by changing one code after the other as long as that helps.
float descend_symmetric(const float* x, Index n, int half, std::uint8_t* codes);

/// The best scale for x ≈ scale · q of numbers not below 0, q from 0 to largest.
float search_positive(const float* x, const float* w, Index n, int largest, std::uint8_t* codes);

/// The place in 16 ascending values of the one nearest to t, the larger one of two.
int nearest_value(const std::array<float, 16>& values, float t);

/// The best scale for x ≈ scale · values[q], of 16 starts.
float search_values(const float* x, const float* w, Index n, const std::array<float, 16>& values);

/// Σ x².
float sum_of_squares(const float* x, Index n);

/// Weights of an importance matrix for n numbers: w_i = importance_i · sqrt(mean square + x_i²); returns their sum.
float weigh(const float* x, const float* importance, Index n, float mean_square, float* w);

}  // namespace lowrank::inline LOWRANK_ABI::quant
LOWRANK_IEEE_END

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/block_search.inl>
#endif
