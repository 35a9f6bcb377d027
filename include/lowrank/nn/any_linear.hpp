#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <variant>

#include <lowrank/nn/embedding.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A linear layer whose weight format is known at run time only: Linear<float> (the one kind that can be trained), or a frozen matrix of
/// any format. The choice is made once a product, never inside a kernel.
class AnyLinear {
 public:
  using Scalar = float;
  using Variant = std::variant<Linear<float>, SourceLinear<AnyMatrix>>;

  /// An empty layer, to be assigned.
  AnyLinear() : layer_(Linear<float>(Weight<float>())) {}
  AnyLinear(Linear<float> layer) : layer_(std::move(layer)) {}
  AnyLinear(SourceLinear<AnyMatrix> layer) : layer_(std::move(layer)) {}
  /// A QuantizedLinear or FrozenLinear; its weight is shared, not copied.
  template <class Matrix>
  AnyLinear(SourceLinear<Matrix> layer) : AnyLinear(AnyMatrix(layer.weight()), layer.bias().value) {
    set_compute(layer.compute());
  }
  /// A frozen weight [out, in] with a bias [out], or none.
  explicit AnyLinear(AnyMatrix weight, Vector<float> bias = {}) : layer_(SourceLinear<AnyMatrix>(std::move(weight), std::move(bias))) {}

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
  Layer* get_if() {
    return std::get_if<Layer>(&layer_);
  }
  template <class Layer>
  const Layer* get_if() const {
    return std::get_if<Layer>(&layer_);
  }

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
  Activation<float> operator()(const Activation<float>& x) const {
    return visit([&](const auto& layer) -> Activation<float> { return layer(x); });
  }
  /// The same, recorded where a gradient is needed.
  Var<float> operator()(const Var<float>& x) {
    return visit([&](auto& layer) { return layer(x); });
  }
  Activation<float> product(const Activation<float>& x) const {
    return visit([&](const auto& layer) -> Activation<float> { return layer.product(x); });
  }
  Activation<float> transposed_product(const Activation<float>& g) const {
    return visit([&](const auto& layer) -> Activation<float> { return layer.transposed_product(g); });
  }

  /// Rows ids of the weight as columns [in, T]: an embedding table in any format. Throws ValueError.
  Activation<float> embed(std::span<const std::int32_t> ids) const {
    return visit([&](const auto& layer) { return embedding_forward<float>(layer.source(), ids); });
  }
  /// The same, recorded on the tape, if there is one, while the weight is trainable.
  Var<float> embed(Tape<float>* tape, std::span<const std::int32_t> ids) {
    if (auto* dense = get_if<Linear<float>>()) return embedding(tape, dense->weight(), ids);
    return tape ? tape->input(embed(ids)) : Var<float>(embed(ids));
  }

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
  Parameter<float>& bias() {
    return visit([](auto& layer) -> Parameter<float>& { return layer.bias(); });
  }
  const Parameter<float>& bias() const {
    return visit([](const auto& layer) -> const Parameter<float>& { return layer.bias(); });
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit([&](auto& layer) { layer.visit_parameters(visitor); });
  }
  /// The weight on a GPU.
  DeviceSlot& device() const { return device_; }

 private:
  Variant layer_;
  mutable DeviceSlot device_;
};

/// adapted_forward for the layer that is held, so that base and update stay one operation.
template <class Weights>
Var<float> adapted_forward(AnyLinear& layer, Weights& update, const Var<float>& x) {
  return layer.visit([&](auto& held) { return adapted_forward(held, update, x); });
}
template <class Weights>
Activation<float> adapted_forward(const AnyLinear& layer, const Weights& update, const Activation<float>& x) {
  return layer.visit([&](const auto& held) -> Activation<float> { return adapted_forward(held, update, x); });
}

/// Rows ids of a table in any format as columns [in, T]; see AnyLinear::embed.
inline Var<float> embed(AnyLinear& table, Tape<float>* tape, std::span<const std::int32_t> ids) { return table.embed(tape, ids); }

/// Cross-entropy of the logits W X of a head in any format, never [vocabulary, T] whole; recorded where a gradient is needed.
inline Var<float> linear_cross_entropy(AnyLinear& head, const Var<float>& x, std::span<const std::int32_t> targets) {
  if (auto* dense = head.get_if<Linear<float>>()) return linear_cross_entropy(dense->weight(), x, targets, dense->compute());
  return head.visit([&](auto& layer) { return linear_cross_entropy(layer.source(), x, targets, layer.compute()); });
}

}  // namespace lowrank::inline LOWRANK_ABI
