#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

#include <lowrank/core/random.hpp>
#include <lowrank/kernels/driver/scratch.hpp>
#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// y = f(x) on arrays, token by token.
template <MatrixLike X, class Function, class S = ScalarOf<X>>
Activation<S> map_tokens(const X& input, const Function& f) {
  const ActivationView<S> x(input);
  const Index n = x.rows();
  Activation<S> y(n, x.cols());
  for_each_token(n, x.cols(), [&](Index t) { f(x.col(t).data(), y.col(t).data(), n); });
  return y;
}

/// z = f(x, y) on arrays of the same shape.
template <MatrixLike X, class Function, class S = ScalarOf<X>>
Activation<S> map_tokens(const char* operation, const X& input, const ActivationView<S>& g, const Function& f) {
  const ActivationView<S> x(input);
  check_same_shape(operation, "x", x, "g", g);
  const Index n = x.rows();
  Activation<S> y(n, x.cols());
  for_each_token(n, x.cols(), [&](Index t) { f(x.col(t).data(), g.col(t).data(), y.col(t).data(), n); });
  return y;
}

/// σ(x) = 1 / (1 + e⁻ˣ). Below −80 the value is kept at σ(−80) ≈ 2·10⁻³⁵: e⁻ˣ stays finite in float.
template <class Array>
auto sigmoid(const Array& x) {
  using S = typename Array::Scalar;
  return S(1) / (S(1) + (-x.max(S(-80))).exp());
}

}  // namespace detail

/// max(x, 0).
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> relu_forward(const X& x) {
  return detail::map_tokens(x, [](const S* in, S* y, Index n) { detail::array(y, n) = detail::array(in, n).max(S(0)); });
}

/// dx = g where x > 0, else 0.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> relu_backward(const X& x, const ActivationView<S>& g) {
  return detail::map_tokens("relu_backward", x, g, [](const S* in, const S* gt, S* dx, Index n) {
    for (Index i = 0; i < n; ++i) dx[i] = in[i] > S(0) ? gt[i] : S(0);
  });
}

/// Sigmoid-weighted linear unit: x σ(x).
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> silu_forward(const X& x) {
  return detail::map_tokens(x, [](const S* in, S* y, Index n) {
    const auto v = detail::array(in, n);
    detail::array(y, n) = v * detail::sigmoid(v);
  });
}

/// dx = g σ (1 + x (1 − σ)), σ = σ(x) recomputed.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> silu_backward(const X& x, const ActivationView<S>& g) {
  return detail::map_tokens("silu_backward", x, g, [](const S* in, const S* gt, S* out, Index n) {
    const auto v = detail::array(in, n);
    auto dx = detail::array(out, n);
    dx = detail::sigmoid(v);
    dx = detail::array(gt, n) * dx * (S(1) + v * (S(1) - dx));
  });
}

/// Gaussian error linear unit: x Φ(x), Φ(x) = (1 + erf(x / √2)) / 2. Hendrycks and Gimpel 2016.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> gelu_forward(const X& x) {
  return detail::map_tokens(x, [](const S* in, S* y, Index n) {
    for (Index i = 0; i < n; ++i) y[i] = S(0.5) * in[i] * std::erfc(-in[i] / std::numbers::sqrt2_v<S>);
  });
}

/// dx = g (Φ(x) + x φ(x)), φ the normal density.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> gelu_backward(const X& x, const ActivationView<S>& g) {
  return detail::map_tokens("gelu_backward", x, g, [](const S* in, const S* gt, S* dx, Index n) {
    constexpr S density = std::numbers::inv_sqrtpi_v<S> / std::numbers::sqrt2_v<S>;
    for (Index i = 0; i < n; ++i) {
      const S v = in[i], cumulative = S(0.5) * std::erfc(-v / std::numbers::sqrt2_v<S>);
      dx[i] = gt[i] * (cumulative + v * density * std::exp(S(-0.5) * v * v));
    }
  });
}

namespace detail {

// √(2/π) and the cubic term of GELU's tanh form.
template <class S>
inline constexpr S gelu_slope = std::numbers::sqrt2_v<S>* std::numbers::inv_sqrtpi_v<S>;
template <class S>
inline constexpr S gelu_cubic = S(0.044715);

}  // namespace detail

/// GELU's tanh form: x (1 + tanh u) / 2, u = √(2/π) (x + 0.044715 x³).
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> gelu_tanh_forward(const X& x) {
  return detail::map_tokens(x, [](const S* in, S* y, Index n) {
    const auto v = detail::array(in, n);
    detail::array(y, n) = S(0.5) * v * (S(1) + (detail::gelu_slope<S> * v * (S(1) + detail::gelu_cubic<S> * v * v)).tanh());
  });
}

/// dx = g ((1 + tanh u) + x (1 − tanh² u) u′) / 2.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> gelu_tanh_backward(const X& x, const ActivationView<S>& g) {
  return detail::map_tokens("gelu_tanh_backward", x, g, [](const S* in, const S* gt, S* out, Index n) {
    const auto v = detail::array(in, n);
    auto th = detail::array(out, n);
    th = (detail::gelu_slope<S> * v * (S(1) + detail::gelu_cubic<S> * v * v)).tanh();
    th = S(0.5) * detail::array(gt, n) *
         ((S(1) + th) + v * (S(1) - th * th) * detail::gelu_slope<S> * (S(1) + S(3) * detail::gelu_cubic<S> * v * v));
  });
}

/// Gradients of swiglu_forward's two inputs.
template <class S>
struct SwigluGradients {
  Activation<S> dgate, dup;
};

namespace detail {

struct WidenedTokens {};

/// Calls body(t, gate of token t, up of token t) for each token.
template <class S, class Body>
void for_each_gated(const char* operation, const Tokens<S>& gate, const Tokens<S>& up, const Body& body) {
  check_same_shape(operation, "gate", gate, "up", up);
  const Index n = gate.rows();
  for_each_token(n, gate.cols(), [&](Index t) {
    S* const room = kernels::Scratch<WidenedTokens>::get<S>(2 * n);
    body(t, gate.token(t, room), up.token(t, room + n));
  });
}

template <class S>
Activation<S> swiglu(const Tokens<S>& gate, const Tokens<S>& up) {
  const Index n = gate.rows();
  Activation<S> y(n, gate.cols());
  for_each_gated("swiglu_forward", gate, up, [&](Index t, const S* in, const S* ut) {
    if constexpr (std::is_same_v<S, float>) {
      elementwise().swiglu(in, ut, n, y.col(t).data());
    } else {
      const auto v = array(in, n);
      y.col(t).array() = v * sigmoid(v) * array(ut, n);
    }
  });
  return y;
}

template <class S>
SwigluGradients<S> swiglu_gradients(const Tokens<S>& gate, const Tokens<S>& up, const ActivationView<S>& g) {
  check_same_shape("swiglu_backward", "gate", gate, "g", g);
  const Index n = gate.rows();
  SwigluGradients<S> gradients{Activation<S>(n, gate.cols()), Activation<S>(n, gate.cols())};
  for_each_gated("swiglu_backward", gate, up, [&](Index t, const S* in, const S* ut) {
    S *dgate_t = gradients.dgate.col(t).data(), *dup_t = gradients.dup.col(t).data();
    if constexpr (std::is_same_v<S, float>) {
      elementwise().swiglu_backward(in, ut, g.col(t).data(), n, dgate_t, dup_t);
    } else {
      const auto v = array(in, n), gt = array(g.col(t).data(), n);
      auto dgate = array(dgate_t, n), dup = array(dup_t, n);
      dgate = sigmoid(v);
      dup = gt * v * dgate;
      dgate = gt * array(ut, n) * dgate * (S(1) + v * (S(1) - dgate));
    }
  });
  return gradients;
}

}  // namespace detail

/// Gated unit: silu(gate) ∘ up, both [n, T]. Shazeer 2020. Throws ShapeError.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> swiglu_forward(const X& gate, const ActivationView<S>& up) {
  const ActivationView<S> view(gate);
  return detail::swiglu<S>(view, up);
}
/// The same of tokens that may lie in bfloat16.
template <class S>
Activation<S> swiglu_forward(const Tokens<S>& gate, const Tokens<S>& up) {
  return detail::swiglu<S>(gate, up);
}

/// dgate = g ∘ up ∘ silu′(gate), dup = g ∘ silu(gate).
template <MatrixLike X, class S = ScalarOf<X>>
SwigluGradients<S> swiglu_backward(const X& gate, const ActivationView<S>& up, const ActivationView<S>& g) {
  const ActivationView<S> view(gate);
  return detail::swiglu_gradients<S>(view, up, g);
}
/// The same of tokens that may lie in bfloat16.
template <class S>
SwigluGradients<S> swiglu_backward(const Tokens<S>& gate, const Tokens<S>& up, const ActivationView<S>& g) {
  return detail::swiglu_gradients<S>(gate, up, g);
}

/// Names one dropout mask: the same key gives the same mask, on every platform and for any number of threads.
struct DropoutKey {
  std::uint64_t seed = 0, stream = 0;
};

/// Zeroes each number with the given probability and scales the rest by 1 / (1 − probability).
///
/// Number (i, t) of [n, T] uses draw t·n + i of the key's generator, so the mask is never stored. Throws ValueError unless
/// 0 ≤ probability < 1. Srivastava et al. 2014.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> dropout_forward(const X& input, double probability, DropoutKey key) {
  check<ValueError>(is_finite(probability) && probability >= 0 && probability < 1, "dropout", "probability is ", probability,
                    "; it must be in [0, 1)");
  const ActivationView<S> x(input);
  if (probability == 0) return x;
  const Index n = x.rows();
  const S keep_scale = static_cast<S>(1 / (1 - probability));
  const auto threshold = static_cast<std::uint64_t>(probability * 0x1p32);
  const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
  const auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
  Activation<S> y(n, x.cols());
  detail::for_each_token(n, x.cols(), [&](Index t) {
    std::array<std::uint32_t, 4> words{};
    for (Index i = 0; i < n; ++i) {
      const auto draw = static_cast<std::uint64_t>(t * n + i);
      if (i == 0 || draw % 4 == 0)
        words = philox({low(draw / 4), high(draw / 4), low(key.stream), high(key.stream)}, {low(key.seed), high(key.seed)});
      y(i, t) = words[draw % 4] < threshold ? S(0) : x(i, t) * keep_scale;
    }
  });
  return y;
}

/// Gradient of dropout_forward: the same mask and scale on G.
template <MatrixLike G>
auto dropout_backward(const G& g, double probability, DropoutKey key) {
  return dropout_forward(g, probability, key);
}

#if defined(LOWRANK_COMPILED)
extern template Activation<float> relu_forward(const Activation<float>&);
extern template Activation<float> relu_backward(const Activation<float>&, const ActivationView<float>&);
extern template Activation<float> silu_forward(const Activation<float>&);
extern template Activation<float> silu_backward(const Activation<float>&, const ActivationView<float>&);
extern template Activation<float> gelu_forward(const Activation<float>&);
extern template Activation<float> gelu_backward(const Activation<float>&, const ActivationView<float>&);
extern template Activation<float> gelu_tanh_forward(const Activation<float>&);
extern template Activation<float> gelu_tanh_backward(const Activation<float>&, const ActivationView<float>&);
extern template Activation<float> swiglu_forward(const Activation<float>&, const ActivationView<float>&);
extern template SwigluGradients<float> swiglu_backward(const Activation<float>&, const ActivationView<float>&,
                                                       const ActivationView<float>&);
extern template Activation<float> dropout_forward(const Activation<float>&, double, DropoutKey);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/activation.inl>
#endif
