#pragma once

/// A linear layer with an update of any method, as one layer.

#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include <lowrank/nn/recorded_group.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Any linear layer, frozen, with an update that trains: what the method's plan says, for LoRA Y = W X + b + s B (A X).
///
/// A value: copies share a quantized base's bytes and own the update. Layers nest.
template <LinearLayer Base, UpdateMethod Method>
class Adapted {
 public:
  using Scalar = typename Base::Scalar;
  using Update = Method;
  static constexpr std::string_view kind = "Adapted";

  /// Freezes the base.
  Adapted(Base base, Method update) : base_(std::move(base)), update_(std::move(update)) { base_.set_trainable(false); }

  Index in_features() const { return base_.in_features(); }
  Index out_features() const { return base_.out_features(); }

  /// Y for X [in, T], without a tape: nothing is kept, nothing dropped out. Throws ShapeError.
  template <MatrixLike X>
  auto operator()(const X& x) const {
    if constexpr (detail::Misfit<X, Scalar, in>) {
      return detail::refuse<X, Scalar, in>();
    } else {
      return is_merged() ? Activation<Scalar>((*merged_)(x)) : detail::adapted(base_, reference(), x);
    }
  }
  /// The same, recorded; dropout is active on a tape.
  Var<Scalar> operator()(const Var<Scalar>& x) & {
    if (!is_merged()) return detail::adapted(base_, reference(), {}, x);
    check<Error>(x.tape() == nullptr, "adapted", "the layer is merged, so its update cannot be trained; unmerge it first");
    return Var<Scalar>((*merged_)(x.value()));
  }
  Var<Scalar> operator()(const Var<Scalar>& x) && = delete;  // the recording refers to the layer: give the layer a name first

  /// Y without the biases [out, T].
  template <MatrixLike X>
  Activation<Scalar> product(const X& x) const {
    if constexpr (detail::Misfit<X, Scalar, in>) {
      return detail::refuse<X, Scalar, in>();
    } else {
      if (is_merged()) return merged_->product(x);
      LayerPlan<Scalar> layer = plan_without_bias(x.cols());
      auto y = std::move(group_forward<Scalar>(std::span(&layer, 1), x, {.compute = compute()}).y.front());
      return layer.has_weight() ? y : Activation<Scalar>(base_.product(x) + y);
    }
  }
  /// The gradient of X for G [out, T]: [in, T].
  template <MatrixLike G>
  Activation<Scalar> transposed_product(const G& gradient) const {
    if constexpr (detail::Misfit<G, Scalar, out>) {
      return detail::refuse<G, Scalar, out>();
    } else {
      const Activation<Scalar> g = gradient;
      if (is_merged()) return merged_->transposed_product(g);
      LayerPlan<Scalar> layer = plan_without_bias(g.cols());
      const GroupOptions options{.compute = compute()};
      auto dx = std::move(group_backward<Scalar>(std::span(&layer, 1), Activation<Scalar>(), {}, {nullptr}, {g}, true, options).dx);
      return layer.has_weight() ? dx : Activation<Scalar>(base_.transposed_product(g) + dx);
    }
  }

  /// What the update adds to the product, as of now.
  Plan<Scalar> plan() const& { return unlocked().plan({.layer = detail::layer_view(base_)}); }
  auto plan() const&& = delete;  // a plan refers to the layer's numbers: give the layer a name first

  Method& update() { return update_; }
  const Method& update() const { return update_; }
  /// Of methods with factors A [r, in], B [out, r] and a scale s.
  Index rank() const { return update_.a.rows(); }
  auto& a() { return update_.a; }
  const auto& a() const { return update_.a; }
  auto& b() { return update_.b; }
  const auto& b() const { return update_.b; }
  Scalar scale() const { return update_.scale; }
  void set_scale(Scalar scale) { update_.scale = scale; }

  Base& base() { return base_; }
  const Base& base() const { return base_; }

  /// While merged the layer is this base with the update in it; base() is still the one that it was made from. See adapters/merge.hpp.
  bool is_merged() const { return merged_.has_value(); }
  const Base& merged() const { return *merged_; }
  void set_merged(Base merged) { merged_.emplace(std::move(merged)); }
  void reset_merged() { merged_.reset(); }

  /// Freezes the base and the update, or makes the update trainable; the base stays frozen (base().set_trainable() frees it).
  void set_trainable(bool trainable) {
    if (!trainable) base_.set_trainable(false);
    update_.set_trainable(trainable);
  }
  Compute compute() const { return detail::compute_of(base_); }
  void set_compute(Compute compute) { base_.set_compute(compute); }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_layer(visitor, *this);
    visit_named(visitor, "base_layer", base_);
    update_.visit_parameters(visitor);
  }

 private:
  static constexpr int in = detail::static_in<Base>(), out = detail::static_out<Base>();

  /// A plan without a tape changes nothing of the update.
  Method& unlocked() const { return const_cast<Method&>(update_); }
  BasicUpdateRef<Scalar> reference() const { return &unlocked(); }
  LayerPlan<Scalar> plan_without_bias(Index tokens) const {
    LayerPlan<Scalar> layer;
    layer.weight = detail::layer_view(base_).weight, layer.out = out_features(), layer.in = in_features();
    layer.plans = {plan()};
    layer.parts = {{0, {0, tokens}}};
    Plan<Scalar>& own = layer.plans.front();
    own.bias = {};
    own.freeze();
    return layer;
  }

  Base base_;
  Method update_;
  std::optional<Base> merged_;
};

}  // namespace lowrank::inline LOWRANK_ABI
