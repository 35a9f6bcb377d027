#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/kernels/format/source.hpp>
#include <lowrank/nn/parameter.hpp>
#include <lowrank/ops/linear.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
struct VisitNothing {  // a named type: nvcc 13 rejects a lambda in the concept
  void operator()(const auto&) const {}
};
}  // namespace detail

/// A layer y = W x + b that adapters can wrap. What it must have:
///
/// | requirement | meaning |
/// |---|---|
/// | `Scalar` | float or double, the numbers of its activations |
/// | `in_features()`, `out_features()` | width and height of W |
/// | `layer(x)`, x an Activation | W x + b without a tape |
/// | `layer(x)`, x a Var | the same, recorded where a gradient is needed |
/// | `product(x)`, `transposed_product(g)` | W x and Wᵀ g, no bias |
/// | `set_trainable(false)` | freezes what it owns |
/// | `visit_parameters(visitor)` | visitor(Parameter&) for each of its parameters |
template <class Candidate>
concept LinearLayer = requires(Candidate& layer, const Candidate& frozen, const Activation<typename Candidate::Scalar>& x,
                               const Var<typename Candidate::Scalar>& var) {
  { frozen.in_features() } -> std::convertible_to<Index>;
  { frozen.out_features() } -> std::convertible_to<Index>;
  { frozen(x) } -> std::convertible_to<Activation<typename Candidate::Scalar>>;
  { layer(var) } -> std::convertible_to<Var<typename Candidate::Scalar>>;
  { frozen.product(x) } -> std::convertible_to<Activation<typename Candidate::Scalar>>;
  { frozen.transposed_product(x) } -> std::convertible_to<Activation<typename Candidate::Scalar>>;
  layer.set_trainable(false);
  layer.visit_parameters(detail::VisitNothing{});
};

/// A linear layer whose weight can be read as a source, so that a product and its low-rank update are one operation.
template <class Candidate>
concept HasSource = LinearLayer<Candidate> && requires(Candidate& layer) {
  { layer.source() } -> Source;
  { layer.weight_trainable() } -> std::convertible_to<bool>;
  { layer.compute() } -> std::convertible_to<Compute>;
  layer.bias();
};

namespace detail {

template <class Layer>
constexpr int static_in() {
  if constexpr (requires { Layer::static_in_features; }) return Layer::static_in_features;
  return Dynamic;
}
template <class Layer>
constexpr int static_out() {
  if constexpr (requires { Layer::static_out_features; }) return Layer::static_out_features;
  return Dynamic;
}

// Misuse of a layer's call operator in one sentence.
template <class X, class S>
constexpr void check_scalar() {
  static_assert(std::is_same_v<typename X::Scalar, S>,
                "layer(x): x must have the layer's scalar; write layer(x.cast<float>()), or make the layer with Scalar = double");
}

inline void check_input(const char* layer, Index rows, Index cols, Index in) {
  check<ShapeError>(rows == in, layer, "x is [", rows, ", ", cols, "] but the layer expects in = ", in, "; x is [in, tokens]");
}

template <class S, class Bias>
void add_bias(Activation<S>& y, const Bias& bias) {
  if (!bias.empty()) y.colwise() += vector_of(bias);
}

template <class S, class Bias>
void add_bias_gradient(Bias& bias, const Activation<S>& g) {
  if (bias.needs_grad()) linear_backward_bias(gradient_vector(bias), g);
}

/// Y = W X + b of a frozen source, recorded: keeps the source, nothing of X. A bias that is not empty must outlive the recording.
template <Source W, class Bias, class S, class Device>
Var<S, Device> frozen_linear(const char* name, const W& source, Bias& bias, const Var<S, Device>& x, Compute compute) {
  check_input(name, x.rows(), x.cols(), source.cols());
  auto y = linear_forward(source, x.value(), compute);  // [out, in] · [in, T]
  add_bias(y, bias);
  const auto backward = [source, b = bias.empty() ? nullptr : &bias, compute](auto& flow) {
    if (b) add_bias_gradient(*b, flow.gradient());
    if (flow.needs(0)) flow.add(0, linear_backward_input(source, flow.gradient(), compute));  // Wᵀ G   [in, T]
  };
  return record(std::move(y), {x}, backward, bias.needs_grad()).kept_as(compute);
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
