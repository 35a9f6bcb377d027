#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/nn/embedding.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A linear layer whose weight format is known at run time only: Linear (the one kind that can be trained), or a frozen matrix of
/// any format. The choice is made once a product, never inside a kernel.
template <class S>
class BasicAnyLinear {
 public:
  using Scalar = S;
  static constexpr std::string_view kind = "AnyLinear";
  using Variant = std::variant<Linear<S>, SourceLinear<AnyMatrix, S>>;

  /// An empty layer, to be assigned.
  BasicAnyLinear() : layer_(Linear<S>(Weight<S>())) {}
  BasicAnyLinear(Linear<S> layer) : layer_(std::move(layer)) {}
  BasicAnyLinear(SourceLinear<AnyMatrix, S> layer) : layer_(std::move(layer)) {}
  /// A QuantizedLinear or FrozenLinear; its weight is shared, not copied.
  template <class Matrix>
  BasicAnyLinear(SourceLinear<Matrix, S> layer) : BasicAnyLinear(AnyMatrix(layer.weight()), layer.bias().value) {
    set_compute(layer.compute());
  }
  /// A frozen weight [out, in] with a bias [out], or none.
  explicit BasicAnyLinear(AnyMatrix weight, Column<S> bias = {}) : layer_(SourceLinear<AnyMatrix, S>(std::move(weight), std::move(bias))) {}

  /// Calls f with the layer that is held.
  template <class F>
  decltype(auto) visit(F&& f) {
    return std::visit(std::forward<F>(f), layer_);
  }
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), layer_);
  }
  /// The layer as that type, or nullptr.
  template <class Layer>
  Layer* get_if() & {
    return std::get_if<Layer>(&layer_);
  }
  template <class Layer>
  const Layer* get_if() const& {
    return std::get_if<Layer>(&layer_);
  }
  template <class Layer>
  const Layer* get_if() const&& = delete;  // the pointer is into this layer: give it a name first

  Index in_features() const {
    return visit([](const auto& layer) { return layer.in_features(); });
  }
  Index out_features() const {
    return visit([](const auto& layer) { return layer.out_features(); });
  }
  std::size_t weight_bytes() const {
    return visit([](const auto& layer) { return layer.weight_bytes(); });
  }

  /// W X + b for X [in, T], without a tape. Throws ShapeError.
  Activation<S> operator()(const Activation<S>& x) const {
    return visit([&](const auto& layer) -> Activation<S> { return layer(x); });
  }
  template <MatrixLike X>
  requires detail::Misfit<X, S, Dynamic>
  auto operator()(const X&) const { return detail::refuse<X, S, Dynamic>(); }
  /// The same, recorded where a gradient is needed.
  Var<S> operator()(const Var<S>& x) & {
    return visit([&](auto& layer) { return layer(x); });
  }
  Var<S> operator()(const Var<S>& x) && = delete;  // the recording refers to the layer: give the layer a name first
  Activation<S> product(const Activation<S>& x) const {
    return visit([&](const auto& layer) -> Activation<S> { return layer.product(x); });
  }
  Activation<S> transposed_product(const Activation<S>& g) const {
    return visit([&](const auto& layer) -> Activation<S> { return layer.transposed_product(g); });
  }

  /// Rows ids of the weight as columns [in, T]: an embedding table in any format. Throws ValueError.
  Activation<S> embed(std::span<const std::int32_t> ids) const {
    return visit([&](const auto& layer) { return embedding_forward<S>(layer.source(), ids); });
  }
  /// The same, recorded on the tape, if there is one, while the weight is trainable.
  Var<S> embed(Tape<S>* tape, std::span<const std::int32_t> ids) & {
    if (auto* dense = get_if<Linear<S>>()) return embedding(tape, dense->weight(), ids);
    return tape ? tape->input(embed(ids)) : Var<S>(embed(ids));
  }
  auto embed(Tape<S>*, std::span<const std::int32_t>) && = delete;  // the recording refers to the layer: give the layer a name first

  /// Makes a dense weight trainable, or freezes it; of the others the bias alone.
  void set_trainable(bool trainable) {
    visit([&](auto& layer) { layer.set_trainable(trainable); });
  }
  bool weight_trainable() const {
    return visit([](const auto& layer) { return layer.weight_trainable(); });
  }
  Compute compute() const {
    return visit([](const auto& layer) { return layer.compute(); });
  }
  void set_compute(Compute compute) {
    visit([&](auto& layer) { layer.set_compute(compute); });
  }
  Parameter<S>& bias() {
    return visit([](auto& layer) -> Parameter<S>& { return layer.bias(); });
  }
  const Parameter<S>& bias() const {
    return visit([](const auto& layer) -> const Parameter<S>& { return layer.bias(); });
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit([&](auto& layer) { layer.visit_parameters(visitor); });
  }
  /// The weight where it lies.
  WeightView source() const& {
    return visit([](const auto& layer) { return WeightView(layer.source()); });
  }
  auto source() const&& = delete;  // a source refers to the layer's numbers: give the layer a name first
  /// The weight on a GPU.
  DeviceSlot& device() const { return device_; }

 private:
  Variant layer_;
  mutable DeviceSlot device_;
};
/// The layer in float, as files give it.
using AnyLinear = BasicAnyLinear<float>;

/// Rows ids of a table in any format as columns [in, T]; see BasicAnyLinear::embed.
template <class S>
Var<S> embed(BasicAnyLinear<S>& table, std::type_identity_t<Tape<S>>* tape, std::span<const std::int32_t> ids) {
  return table.embed(tape, ids);
}

/// Cross-entropy of the logits W X of a head in any format, never [vocabulary, T] whole; recorded where a gradient is needed.
template <class S>
Var<S> linear_cross_entropy(BasicAnyLinear<S>& head, const std::type_identity_t<Var<S>>& x, std::span<const std::int32_t> targets) {
  if (auto* dense = head.template get_if<Linear<S>>()) return linear_cross_entropy(dense->weight(), x, targets, dense->compute());
  return head.visit([&](auto& layer) { return linear_cross_entropy(layer.source(), x, targets, layer.compute()); });
}

}  // namespace lowrank::inline LOWRANK_ABI
