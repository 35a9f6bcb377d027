#pragma once

#include <cmath>

#include <lowrank/ops/loss.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Softmax of each column: y = e^(x − max) / Σ e^(x − max), for X [n, T]. Numbers that are −∞ become 0, also where a column has no other.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> softmax_forward(const X& input) {
  const ActivationView<S> x(input);
  const Index n = x.rows();
  Activation<S> y(n, x.cols());
  if (n == 0) return y;
  detail::for_each_token(n, x.cols(), [&](Index t) {
    const S* x_t = x.col(t).data();
    S* y_t = y.col(t).data();
    detail::scale(S(1) / detail::exponential(x_t, detail::max_of(x_t, n), n, y_t), n, y_t);
    for (Index i = 0; i < n; ++i)  // the kernels' e^−∞ is 10⁻³⁹
      if (is_minus_infinity(x_t[i])) y_t[i] = S(0);
  });
  return y;
}

/// dx = y ∘ (g − Σ y∘g) of each column, from the result Y. Throws ShapeError.
template <MatrixLike Y, class S = ScalarOf<Y>>
Activation<S> softmax_backward(const Y& result, const ActivationView<S>& g) {
  const ActivationView<S> y(result);
  detail::check_same_shape("softmax_backward", "y", y, "g", g);
  const Index n = y.rows();
  Activation<S> dx(n, y.cols());
  detail::for_each_token(n, y.cols(), [&](Index t) {
    const S *y_t = y.col(t).data(), *g_t = g.col(t).data();
    const S mean = detail::sum_of<S>(n, [&](Index i) { return y_t[i] * g_t[i]; });
    dx.col(t).array() = y.col(t).array() * (g.col(t).array() - mean);
  });
  return dx;
}

/// Logarithm of softmax_forward: y = (x − max) − log Σ e^(x − max), finite for any finite x. NaN in a column of −∞ alone.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> log_softmax_forward(const X& input) {
  const ActivationView<S> x(input);
  const Index n = x.rows();
  Activation<S> y(n, x.cols());
  if (n == 0) return y;
  detail::for_each_token(n, x.cols(), [&](Index t) {
    const auto sums = detail::softmax_sums(x.col(t).data(), n);
    y.col(t).array() = (x.col(t).array() - sums.max) - std::log(sums.sum);
  });
  return y;
}

/// dx = g − e^y Σ g of each column, from the result Y. Throws ShapeError.
template <MatrixLike Y, class S = ScalarOf<Y>>
Activation<S> log_softmax_backward(const Y& result, const ActivationView<S>& g) {
  const ActivationView<S> y(result);
  detail::check_same_shape("log_softmax_backward", "y", y, "g", g);
  const Index n = y.rows();
  Activation<S> dx(n, y.cols());
  detail::for_each_token(n, y.cols(), [&](Index t) {
    const S* g_t = g.col(t).data();
    const S total = detail::sum_of<S>(n, [&](Index i) { return g_t[i]; });
    dx.col(t).array() = g.col(t).array() - y.col(t).array().exp() * total;
  });
  return dx;
}

}  // namespace lowrank::inline LOWRANK_ABI
