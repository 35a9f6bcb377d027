#pragma once

/// Cross-entropy on a GPU, for Vars.

#include <cstdint>
#include <span>

#include <lowrank/autograd/tape.hpp>
#include <lowrank/cuda/array.hpp>
#include <lowrank/nn/any_linear.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Mean cross-entropy of logits [vocabulary, T], a [1, 1]; tokens whose target is ignored_target do not count. Keeps the gradient. Throws
/// ShapeError, ValueError.
Var<float, Cuda> cross_entropy(const Var<float, Cuda>& logits, std::span<const std::int32_t> targets);

/// The same of the logits W X of a frozen head in any format, in slices of tokens of at most `slice_numbers` logits, never
/// [vocabulary, T] whole: W X, softmax, Wᵀ of its gradient. Keeps dX.
Var<float, Cuda> linear_cross_entropy(AnyLinear& head, const Var<float, Cuda>& x, std::span<const std::int32_t> targets,
                                      Index slice_numbers = Index{1} << 26);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/loss.inl>
#endif
