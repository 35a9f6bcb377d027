#pragma once

/// Products of two dense matrices: what methods and their gradients multiply among themselves, compiled once.

#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A B, for A [m, k] and B [k, n]. Throws ShapeError, as the next. Cost: 2 m k n FLOPs. S is named: `times<S>(a, b)`.
template <class S>
Activation<S> times(const ActivationView<S>& a, const ActivationView<S>& b);

/// Aᵀ B, for A [k, m] and B [k, n].
template <class S>
Activation<S> transposed_times(const ActivationView<S>& a, const ActivationView<S>& b);

/// A Bᵀ, for A [m, k] and B [n, k].
template <class S>
Activation<S> times_transposed(const ActivationView<S>& a, const ActivationView<S>& b);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/product/dense.inl>
#endif
