#pragma once

#include <cmath>

#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Gradients of the input [n, T] and of the weight [n].
template <class S>
struct RmsNormGradients {
  Activation<S> dx;
  Vector<S> dweight;
};

namespace detail {

template <class S>
S inverse_rms(const S* x, Index n, S epsilon) {
  return S(1) / std::sqrt(sum_of<S>(n, [x](Index i) { return x[i] * x[i]; }) / static_cast<S>(n) + epsilon);
}

template <class S>
void check_norm_weight(const char* operation, Index weight, Index rows, Index tokens) {
  check<ShapeError>(weight == rows, operation, "weight is [", weight, "] but x is [", rows, ", ", tokens,
                    "]; the weight must have one number a row of x");
}

}  // namespace detail

/// Root-mean-square norm of each token: y = w ∘ x ρ, ρ = 1 / √(mean(x²) + ε).
///
/// X [n, T], w [n]; gives [n, T]. Throws ShapeError. Zhang and Sennrich 2019.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> rms_norm_forward(const X& input, const VectorView<S>& weight, std::type_identity_t<S> epsilon) {
  const ActivationView<S> x(input);
  const Index n = x.rows();
  detail::check_norm_weight<S>("rms_norm_forward", weight.size(), n, x.cols());
  Activation<S> y(n, x.cols());
  detail::for_each_token(n, x.cols(), [&](Index t) {
    const S rho = detail::inverse_rms(x.col(t).data(), n, epsilon);
    y.col(t).array() = x.col(t).array() * rho * weight.array();
  });
  return y;
}

/// Gradients of rms_norm_forward for G = dL/dY: dx = ρ (w∘g) − x ρ³ mean(w∘g∘x), dw = Σₜ ρ g∘x.
///
/// ρ is recomputed. The sum over tokens is taken in blocks of 64, in order.
template <MatrixLike X, class S = ScalarOf<X>>
RmsNormGradients<S> rms_norm_backward(const X& input, const VectorView<S>& weight, std::type_identity_t<S> epsilon,
                                      const ActivationView<S>& g) {
  const ActivationView<S> x(input);
  const Index n = x.rows(), tokens = x.cols(), block = 64;
  detail::check_norm_weight<S>("rms_norm_backward", weight.size(), n, tokens);
  detail::check_same_shape("rms_norm_backward", "x", x, "g", g);
  RmsNormGradients<S> gradients{Activation<S>(n, tokens), Vector<S>::Zero(n)};
  Activation<S> partial = Activation<S>::Zero(n, ceil_div(tokens, block));
  parallel_ranges(tokens, block, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const S* xt = x.col(t).data();
      const S* gt = g.col(t).data();
      const S rho = detail::inverse_rms(xt, n, epsilon);
      const S mean = detail::sum_of<S>(n, [&](Index i) { return weight[i] * gt[i] * xt[i]; }) / static_cast<S>(n);
      gradients.dx.col(t).array() = rho * weight.array() * g.col(t).array() - (rho * rho * rho * mean) * x.col(t).array();
      partial.col(begin / block).array() += rho * g.col(t).array() * x.col(t).array();
    }
  });
  for (Index piece = 0; piece < partial.cols(); ++piece) gradients.dweight += partial.col(piece);
  return gradients;
}

}  // namespace lowrank::inline LOWRANK_ABI
