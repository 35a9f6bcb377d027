#pragma once

/// Layers of one x with updates, as a Var operation: makes the plans, runs them, and hands the gradients back to the methods.

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/nn/linear_layer.hpp>
#include <lowrank/product/backward.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Tokens [begin, begin + count) of a batch and their update, or null for the bare base.
template <class S>
struct BasicUpdateRange {
  Index begin, count;
  BasicUpdateRef<S> update = {};
};
/// A range whose update is in float.
using UpdateRange = BasicUpdateRange<float>;

namespace detail {

/// A layer of a group: what methods see of it, its bias (null: not trained), and which tokens have which update. An update may stand at
/// several ranges; ranges share tokens only where updates add up.
template <class S>
struct GroupLayer {
  LayerView<S> view;
  Parameter<S>* bias = nullptr;
  std::vector<BasicUpdateRange<S>> ranges = {};
  /// Gives witnesses of what the backward pass reads of the layer; null where nothing is recorded.
  void (*watch)(void* layer, std::vector<Witness>& witnesses) = nullptr;
  void* layer = nullptr;
};

/// The plans of one pass, and the updates that they are of.
template <class S>
struct GroupPlans {
  std::vector<LayerPlan<S>> layers;
  std::vector<std::vector<BasicUpdateRef<S>>> updates;  ///< by layer and plan
  std::vector<Parameter<S>*> biases;
  std::vector<Witness> witnesses;
  bool trains = false, needs_x = false;
  bool may_divide = true;  ///< whether Y divided by each gain is what the gain multiplied

  /// `pass` says of each plan's request what is not the layer's.
  GroupPlans(std::span<const GroupLayer<S>> group, const PlanRequest<S>& pass);

  bool has_gain() const;
  /// Throws Error when a layer or an update is not what and where it was.
  void check_unchanged() const;
  /// Adds what the backward pass gave to the gradients of updates and biases.
  void add_gradients(const GroupBackward<S>& gradients);

 private:
  LayerPlan<S> plan(const GroupLayer<S>& layer, PlanRequest<S> request);
};

/// Y of each layer, recorded where a gradient is needed. Layers and updates must outlive the recording. Throws ShapeError, ValueError.
template <class S>
std::vector<Var<S>> run_group(std::span<const GroupLayer<S>> group, const Var<S>& x, GroupOptions options);
/// The same without a tape.
template <class S>
std::vector<Activation<S>> run_group(std::span<const GroupLayer<S>> group, const ActivationView<S>& x, GroupOptions options);

/// A layer with one update for all tokens, or one a range of them.
template <class Layer, class S = typename Layer::Scalar>
GroupLayer<S> group_layer(Layer& layer, const std::type_identity_t<BasicUpdateRef<S>>& update,
                          std::type_identity_t<std::span<const BasicUpdateRange<S>>> ranges, Index tokens, bool is_recorded) {
  GroupLayer<S> result{layer_view(layer), nullptr, {ranges.begin(), ranges.end()}};
  if (is_recorded)
    result.layer = &layer, result.watch = [](void* object, std::vector<Witness>& all) { watch(*static_cast<Layer*>(object), all); };
  if constexpr (HasSource<Layer>)
    if (result.view.weight.rows() > 0 && !layer.bias().empty()) result.bias = &layer.bias();
  if (update) result.ranges.insert(result.ranges.begin(), {0, tokens, update});
  return result;
}

/// layer(x) with updates, recorded. Over a frozen weight that can be read it is one operation; else the layer records itself and the
/// updates are added.
template <class Layer, class S = typename Layer::Scalar>
Var<S> adapted(Layer& layer, const std::type_identity_t<BasicUpdateRef<S>>& update,
               std::type_identity_t<std::span<const BasicUpdateRange<S>>> ranges, const std::type_identity_t<Var<S>>& x) {
  const GroupLayer<S> group = group_layer(layer, update, ranges, x.cols(), x.tape() != nullptr);
  const GroupOptions options{.compute = group.view.compute, .keeps_unscaled = true};
  if (group.view.weight.rows() > 0) return run_group<S>(std::span(&group, 1), x, options).front();
  check_input("linear", x.rows(), x.cols(), group.view.in);
  if (group.ranges.empty()) return layer(x);
  return layer(x) + run_group<S>(std::span(&group, 1), x, options).front();
}
/// The same without a tape.
template <class Layer, class S = typename Layer::Scalar>
Activation<S> adapted(const Layer& layer, const std::type_identity_t<BasicUpdateRef<S>>& update, const ActivationView<S>& x) {
  const GroupLayer<S> group{layer_view(layer), nullptr, {{0, x.cols(), update}}};
  Activation<S> y = std::move(run_group<S>(std::span(&group, 1), x, {.compute = group.view.compute}).front());
  return group.view.weight.rows() > 0 ? y : Activation<S>(layer(Activation<S>(x)) + y);
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/nn/recorded_group.inl>
#endif
