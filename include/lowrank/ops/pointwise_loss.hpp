#pragma once

/// Losses that are a sum over numbers: each term says its value and its slope in x, and one pair of functions sums and reduces them.

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What becomes of the terms of a loss over [rows, T], PyTorch's names: their mean, their sum, or their sum over the number of columns
/// ("batchmean": a mean over tokens).
enum class Reduction { mean, sum, batch_mean };

/// Binary cross-entropy of a logit x with a probability t: −t log σ(x) − (1 − t) log(1 − σ(x)) = max(x, 0) − x t + log(1 + e^−|x|).
struct LogitsTerm {
  template <class S>
  S value(S x, S t) const {
    return std::max(x, S(0)) - x * t + std::log1p(std::exp(-std::abs(x)));
  }
  template <class S>
  S slope(S x, S t) const {
    return S(1) / (S(1) + std::exp(-x)) - t;
  }
};

/// Huber's loss of e = x − t: e² / 2 where |e| ≤ δ, else δ (|e| − δ/2). Huber 1964.
struct HuberTerm {
  double delta = 1;

  template <class S>
  S value(S x, S t) const {
    const S size = std::abs(x - t), bound = static_cast<S>(delta);
    return size <= bound ? S(0.5) * size * size : bound * (size - S(0.5) * bound);
  }
  template <class S>
  S slope(S x, S t) const {
    const S bound = static_cast<S>(delta);
    return std::clamp(x - t, -bound, bound);
  }
};

/// Kullback-Leibler divergence of a log-probability x from a probability t: t (log t − x), 0 where t is.
struct DivergenceTerm {
  template <class S>
  S value(S x, S t) const {
    return t == S(0) ? S(0) : t * (std::log(t) - x);
  }
  template <class S>
  S slope(S, S t) const {
    return -t;
  }
};

namespace detail {
template <class S>
S share_of(Reduction reduction, Index rows, Index cols) {
  const Index parts = reduction == Reduction::sum ? 1 : reduction == Reduction::mean ? rows * cols : cols;
  return S(1) / static_cast<S>(std::max<Index>(1, parts));
}
}  // namespace detail

/// The terms of X and the target, both [n, T], reduced; 0 for empty arrays. Summed in double, column by column. Throws ShapeError.
template <class Term, MatrixLike X, class S = ScalarOf<X>>
S pointwise_loss_forward(const char* operation, const Term& term, const X& input, const ActivationView<S>& target, Reduction reduction) {
  const ActivationView<S> x(input);
  detail::check_same_shape(operation, "x", x, "target", target);
  double total = 0;
  for (Index t = 0; t < x.cols(); ++t)
    for (Index i = 0; i < x.rows(); ++i) total += static_cast<double>(term.value(x(i, t), target(i, t)));
  return static_cast<S>(total * static_cast<double>(detail::share_of<double>(reduction, x.rows(), x.cols())));
}

/// dx = g · slope, over what the reduction divides by.
template <class Term, MatrixLike X, class S = ScalarOf<X>>
Activation<S> pointwise_loss_backward(const char* operation, const Term& term, const X& input, const ActivationView<S>& target,
                                      Reduction reduction, std::type_identity_t<S> g = S(1)) {
  const ActivationView<S> x(input);
  detail::check_same_shape(operation, "x", x, "target", target);
  const S share = g * detail::share_of<S>(reduction, x.rows(), x.cols());
  Activation<S> dx(x.rows(), x.cols());
  for (Index t = 0; t < x.cols(); ++t)
    for (Index i = 0; i < x.rows(); ++i) dx(i, t) = share * term.slope(x(i, t), target(i, t));
  return dx;
}

}  // namespace lowrank::inline LOWRANK_ABI
