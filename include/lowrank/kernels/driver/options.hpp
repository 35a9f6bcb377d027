#pragma once

/// What a product takes beside its source: activations, and what is done with the result.

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Rows of an activation that lie together: element (k, token) = data[token * stride + k], or data[k * stride + token] when `transposed`.
struct Columns {
  const float* data;
  Index stride;
  Index depth;
  bool transposed = false;
};

/// What happens to a product P = source · X [rows, tokens]: Y = row_scale ∘ (P + Y if accumulate) + bias.
struct Options {
  Compute compute = Compute::fp32;
  bool accumulate = false;
  const float* row_scale = nullptr;  ///< [rows]: each row's factor
  const float* bias = nullptr;       ///< [rows]: added to each token
  bool batch_invariant = false;      ///< a token's bits do not depend on how many others there are: few take the packed path too
};

/// Up to so many tokens rows are streamed.
inline constexpr Index few_tokens = 8;

namespace detail {

/// What the options ask for behind the product, for one window of Y, in place.
inline void finish(const Options& options, Index row, Index rows, Index columns, float* y, Index ldy) {
  for (Index j = 0; j < columns; ++j) {
    float* out = y + j * ldy;
    if (options.row_scale != nullptr)
      for (Index i = 0; i < rows; ++i) out[i] *= options.row_scale[row + i];
    if (options.bias != nullptr)
      for (Index i = 0; i < rows; ++i) out[i] += options.bias[row + i];
  }
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI::kernels
