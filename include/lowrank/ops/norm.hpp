#pragma once

#include <cmath>
#include <type_traits>

#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Gradients of the input [n, T] and of the weight [n], which is empty unless asked for.
template <class S>
struct RmsNormGradients {
  Activation<S> dx;
  Column<S> dweight;
};

namespace detail {

template <class S>
S inverse_rms(const S* x, Index n, S epsilon) {
  S squares = 0;
  if constexpr (std::is_same_v<S, float>)
    squares = elementwise().sum_of_squares(x, n);
  else
    squares = sum_of<S>(n, [x](Index i) { return x[i] * x[i]; });
  return S(1) / std::sqrt(squares / static_cast<S>(n) + epsilon);
}

/// y = x ρ ∘ w.
template <class S>
void scale_token(const S* x, const S* w, S rho, Index n, S* y) {
  if constexpr (std::is_same_v<S, float>)
    elementwise().weighted(x, w, rho, n, y);
  else
    array(y, n) = array(x, n) * rho * array(w, n);
}

/// dx = ρ (w∘g) − x ρ³ mean(w∘g∘x).
template <class S>
void norm_token_gradient(const S* x, const S* w, const S* g, S rho, Index n, S* dx) {
  if constexpr (std::is_same_v<S, float>) {
    const S mean = elementwise().triple_sum(w, g, x, n) / static_cast<S>(n);
    elementwise().norm_gradient(w, g, x, rho, rho * rho * rho * mean, n, dx);
  } else {
    const S mean = sum_of<S>(n, [&](Index i) { return w[i] * g[i] * x[i]; }) / static_cast<S>(n);
    array(dx, n) = rho * array(w, n) * array(g, n) - (rho * rho * rho * mean) * array(x, n);
  }
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
    const S* x_t = x.col(t).data();
    detail::scale_token(x_t, weight.data(), detail::inverse_rms(x_t, n, epsilon), n, y.col(t).data());
  });
  return y;
}

/// Gradients of rms_norm_forward for G = dL/dY: dx = ρ (w∘g) − x ρ³ mean(w∘g∘x), dw = Σₜ ρ g∘x.
///
/// ρ is recomputed. dw is empty unless asked for; its sum over tokens is taken in blocks of 64, in order.
template <MatrixLike X, class S = ScalarOf<X>>
RmsNormGradients<S> rms_norm_backward(const X& input, const VectorView<S>& weight, std::type_identity_t<S> epsilon,
                                      const ActivationView<S>& g, bool need_dweight = true) {
  const ActivationView<S> x(input);
  const Index n = x.rows(), tokens = x.cols(), block = 64;
  detail::check_norm_weight<S>("rms_norm_backward", weight.size(), n, tokens);
  detail::check_same_shape("rms_norm_backward", "x", x, "g", g);
  RmsNormGradients<S> gradients{Activation<S>(n, tokens), Column<S>::Zero(need_dweight ? n : 0)};
  Activation<S> partial = Activation<S>::Zero(n, need_dweight ? ceil_div(tokens, block) : 0);
  parallel_ranges(tokens, block, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const S *x_t = x.col(t).data(), *g_t = g.col(t).data();
      const S rho = detail::inverse_rms(x_t, n, epsilon);
      detail::norm_token_gradient(x_t, weight.data(), g_t, rho, n, gradients.dx.col(t).data());
      if (need_dweight) partial.col(begin / block).array() += rho * g.col(t).array() * x.col(t).array();
    }
  });
  for (Index piece = 0; piece < partial.cols(); ++piece) gradients.dweight += partial.col(piece);
  return gradients;
}

/// Gradients of the input [n, T], of the weight [n] and of the bias [n]; the latter two are empty unless asked for.
template <class S>
struct LayerNormGradients {
  Activation<S> dx;
  Column<S> dweight, dbias;
};

namespace detail {

/// Mean of a token, and ρ = 1 / √(variance + ε).
template <class S>
struct TokenMoments {
  S mean, rho;

  TokenMoments(const S* x, Index n, S epsilon) {
    mean = sum_of<S>(n, [x](Index i) { return x[i]; }) / static_cast<S>(n);
    const S squares = sum_of<S>(n, [x, m = mean](Index i) { return (x[i] - m) * (x[i] - m); });
    rho = S(1) / std::sqrt(squares / static_cast<S>(n) + epsilon);
  }
};

}  // namespace detail

/// Layer norm of each token: y = w ∘ x̂ + b, x̂ = (x − mean(x)) ρ, ρ = 1 / √(variance(x) + ε), the variance divided by n.
///
/// X [n, T], w [n], b [n] or empty for none; gives [n, T]. Throws ShapeError. Ba, Kiros and Hinton 2016.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> layer_norm_forward(const X& input, const VectorView<S>& weight, const VectorView<S>& bias, std::type_identity_t<S> epsilon) {
  const ActivationView<S> x(input);
  const Index n = x.rows();
  detail::check_norm_weight<S>("layer_norm_forward", weight.size(), n, x.cols());
  check<ShapeError>(bias.size() == 0 || bias.size() == n, "layer_norm_forward", "bias is [", bias.size(), "] but x is [", n, ", ", x.cols(),
                    "]; the bias must have one number a row of x, or none");
  Activation<S> y(n, x.cols());
  detail::for_each_token(n, x.cols(), [&](Index t) {
    const detail::TokenMoments<S> moments(x.col(t).data(), n, epsilon);
    y.col(t).array() = (x.col(t).array() - moments.mean) * moments.rho * weight.array();
    if (bias.size() > 0) y.col(t) += bias;
  });
  return y;
}

/// Gradients of layer_norm_forward for G = dL/dY: with h = w∘g, dx = ρ (h − mean(h) − x̂ mean(h∘x̂)), dw = Σₜ g∘x̂, db = Σₜ g.
///
/// Mean and ρ are recomputed. dw and db are empty unless asked for; their sums over tokens are taken in order. Throws ShapeError.
template <MatrixLike X, class S = ScalarOf<X>>
LayerNormGradients<S> layer_norm_backward(const X& input, const VectorView<S>& weight, std::type_identity_t<S> epsilon,
                                          const ActivationView<S>& g, bool need_dweight = true, bool need_dbias = true) {
  const ActivationView<S> x(input);
  const Index n = x.rows();
  detail::check_norm_weight<S>("layer_norm_backward", weight.size(), n, x.cols());
  detail::check_same_shape("layer_norm_backward", "x", x, "g", g);
  LayerNormGradients<S> gradients{Activation<S>(n, x.cols()), Column<S>::Zero(need_dweight ? n : 0), Column<S>::Zero(need_dbias ? n : 0)};
  Activation<S> normalized(n, x.cols());  // x̂
  detail::for_each_token(n, x.cols(), [&](Index t) {
    const detail::TokenMoments<S> moments(x.col(t).data(), n, epsilon);
    auto x_hat = normalized.col(t).array();
    x_hat = (x.col(t).array() - moments.mean) * moments.rho;
    const S *w = weight.data(), *g_t = g.col(t).data(), *unit = normalized.col(t).data();
    const S mean = detail::sum_of<S>(n, [&](Index i) { return w[i] * g_t[i]; }) / static_cast<S>(n);
    const S along = detail::sum_of<S>(n, [&](Index i) { return w[i] * g_t[i] * unit[i]; }) / static_cast<S>(n);
    gradients.dx.col(t).array() = moments.rho * (weight.array() * g.col(t).array() - mean - x_hat * along);
  });
  for (Index t = 0; t < x.cols(); ++t) {
    if (need_dweight) gradients.dweight.array() += g.col(t).array() * normalized.col(t).array();
    if (need_dbias) gradients.dbias += g.col(t);
  }
  return gradients;
}

#if defined(LOWRANK_COMPILED)
extern template Activation<float> rms_norm_forward(const Activation<float>&, const VectorView<float>&, float);
extern template RmsNormGradients<float> rms_norm_backward(const Activation<float>&, const VectorView<float>&, float,
                                                          const ActivationView<float>&, bool);
extern template Activation<float> layer_norm_forward(const Activation<float>&, const VectorView<float>&, const VectorView<float>&, float);
extern template LayerNormGradients<float> layer_norm_backward(const Activation<float>&, const VectorView<float>&, float,
                                                              const ActivationView<float>&, bool, bool);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/norm.inl>
#endif
