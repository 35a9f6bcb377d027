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

}  // namespace lowrank::inline LOWRANK_ABI::kernels
