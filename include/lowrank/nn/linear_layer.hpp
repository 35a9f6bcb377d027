#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/nn/parameter.hpp>
#include <lowrank/nn/print.hpp>
#include <lowrank/product/multiply.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

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
/// | `visit_parameters(visitor)` | visitor(Parameter&) for each of its parameters; before them `visit_layer(visitor, *this)`, so that
/// set_compute() and summary() find it |
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

template <class X, int Rows>
inline constexpr bool fits_rows = Rows == Dynamic || X::RowsAtCompileTime == Dynamic || X::RowsAtCompileTime == Rows;

/// An activation that a layer cannot take, by its type: another scalar than S, or another static number of rows.
template <class X, class S, int Rows>
concept Misfit = !std::is_same_v<typename X::Scalar, S> || !fits_rows<X, Rows>;

/// What stands for the result where a misfit was refused: it passes for numbers of S and of X, so that one error stays one.
template <class X, class S>
struct Refused : Activation<S> {
  template <int Rows, int Cols, int Order, int MaxRows, int MaxCols>
  operator Eigen::Matrix<typename X::Scalar, Rows, Cols, Order, MaxRows, MaxCols>() const {
    return {};
  }
};

/// A misfit in one sentence.
template <class X, class S, int Rows>
Refused<X, S> refuse() {
  static_assert(std::is_same_v<typename X::Scalar, S>,
                "layer(x): x must have the layer's scalar; write layer(x.cast<float>()), or make the layer with Scalar = double");
  static_assert(fits_rows<X, Rows>,
                "layer(x): x does not have the layer's rows; x is [in, tokens], and g of transposed_product(g) [out, tokens]");
  return {};
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
  if (!bias.needs_grad()) return;
  auto db = gradient_vector(bias);
  for (Index t = 0; t < g.cols(); ++t) db += g.col(t);
}

/// How a layer computes; fp32 where it does not say.
template <class Layer>
Compute compute_of(const Layer& layer) {
  if constexpr (requires { layer.compute(); }) return layer.compute();
  return Compute::fp32;
}

/// A layer as methods see it, without the weight where that cannot be read or is trained itself: then the layer computes its own product.
template <class Layer>
LayerView<typename Layer::Scalar> layer_view(const Layer& layer) {
  LayerView<typename Layer::Scalar> view;
  view.out = layer.out_features(), view.in = layer.in_features(), view.compute = compute_of(layer);
  if constexpr (HasSource<Layer>) {
    if (layer.weight_trainable()) return view;
    view.weight = WeightView(layer.source());
    if (!layer.bias().empty()) view.bias = {layer.bias().value.data(), layer.bias().rows(), layer.bias().cols()};
  }
  return view;
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
