#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <type_traits>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <class S>
GroupPlans<S>::GroupPlans(std::span<const GroupLayer<S>> group, const PlanRequest<S>& pass) {
  for (const GroupLayer<S>& layer : group) {
    updates.emplace_back();
    biases.push_back(layer.bias);
    layers.push_back(plan(layer, pass));
    if (layer.watch != nullptr) layer.watch(layer.layer, witnesses);
    trains |= layers.back().trains_bias;
  }
}

template <class S>
LayerPlan<S> GroupPlans<S>::plan(const GroupLayer<S>& layer, PlanRequest<S> request) {
  LayerPlan<S> result;
  result.weight = layer.view.weight, result.out = layer.view.out, result.in = layer.view.in, result.bias = layer.view.bias;
  result.trains_bias = layer.bias != nullptr && layer.bias->needs_grad();
  request.layer = layer.view;
  auto& owners = updates.back();
  for (const BasicUpdateRange<S>& range : layer.ranges) {
    if (!range.update || range.count == 0) continue;
    const auto known = std::find(owners.begin(), owners.end(), range.update);
    // A mask counts a range's own tokens, so that each range with dropout has a plan of its own.
    const bool is_new = known == owners.end() || result.plans[static_cast<std::size_t>(known - owners.begin())].mask;
    if (is_new) {
      owners.push_back(range.update);
      if (request.is_recorded) range.update.watch(witnesses);
      result.plans.push_back(range.update.plan(request));
      const Plan<S>& made = result.plans.back();
      check<ValueError>(result.has_weight() || made.is_additive(), "update",
                        "a method that changes more than a sum needs a base whose weight "
                        "can be read and is frozen: Linear, FrozenLinear or QuantizedLinear, after set_trainable(false)");
      trains |= made.trains();
      needs_x |= made.trains_a || made.trains_input_map || made.trains_delta;
      if (!made.gain.empty() && made.gain.m != nullptr && (made.gain.factors.array() == S(0)).any()) may_divide = false;
      if (!made.gain.empty() && made.mask) may_divide = false;
    }
    result.parts.push_back({is_new ? owners.size() - 1 : static_cast<std::size_t>(known - owners.begin()), {range.begin, range.count}});
  }
  return result;
}

template <class S>
bool GroupPlans<S>::has_gain() const {
  return std::any_of(layers.begin(), layers.end(), [](const auto& layer) {
    return std::any_of(layer.plans.begin(), layer.plans.end(), [](const auto& plan) { return !plan.gain.empty(); });
  });
}

template <class S>
void GroupPlans<S>::check_unchanged() const {
  for (const Witness& witness : witnesses) witness.check_unchanged();
}

template <class S>
void GroupPlans<S>::add_gradients(const GroupBackward<S>& gradients) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].trains_bias) gradient_vector(*biases[i]) += gradients.bias[i];
    for (std::size_t k = 0; k < updates[i].size(); ++k) updates[i][k].add_gradients(gradients.plans[i][k]);
  }
}

/// What a pass on a tape, or on none, asks of plans.
template <class S>
PlanRequest<S> request_on(Tape<S>* tape) {
  if (tape == nullptr) return {};
  return {.is_recorded = true, .draw = [tape](std::uint64_t& counter) { return tape->draw(counter); }};
}

/// What a group keeps for the backward pass. Each output hands in its gradient; the group's node, which comes after them in the sweep, uses
/// them all.
template <class S>
struct GroupRecord {
  GroupPlans<S> plans;
  GroupOptions options;
  GroupForward<S> forward = {};
  std::optional<Kept<S>> x = {};
  std::vector<std::optional<Kept<S>>> y = {};
  std::vector<Activation<S>> g = {};
  std::vector<std::function<Activation<S>()>> rounded = {};  ///< what gains multiply, in bfloat16 where the group computes in it

  void round_unscaled() {
    if constexpr (std::is_same_v<S, float>) {
      if (options.compute != Compute::bf16) return;
      for (Activation<S>& unscaled : forward.unscaled) {
        rounded.push_back(rounded_copy(unscaled));
        unscaled.resize(0, 0);
      }
    }
  }

  template <class Flow>
  void backward(Flow& flow) {
    plans.check_unchanged();
    Index tokens = 0;
    for (const auto& gradient : g) tokens = std::max(tokens, gradient.cols());
    for (std::size_t i = 0; i < g.size(); ++i)
      if (g[i].size() == 0) g[i].setZero(plans.layers[i].out, tokens);  // an output that the loss does not depend on
    for (std::size_t i = 0; i < rounded.size(); ++i) forward.unscaled[i] = rounded[i]();
    const auto held = x ? x->get() : std::make_shared<const Activation<S>>();
    std::vector<std::shared_ptr<const Activation<S>>> results;
    for (const auto& kept : y) results.push_back(kept ? kept->get() : nullptr);
    auto gradients = group_backward<S>(plans.layers, *held, forward, results, std::move(g), flow.needs(0), options);
    plans.add_gradients(gradients);
    if (flow.needs(0)) flow.add(0, std::move(gradients.dx));
  }
};

template <class S>
std::vector<Var<S>> run_group(std::span<const GroupLayer<S>> group, const Var<S>& x, GroupOptions options) {
  options.is_recorded = x.tape() != nullptr;
  auto record_of = std::make_shared<GroupRecord<S>>(GroupRecord<S>{GroupPlans<S>(group, request_on(x.tape())), options});
  GroupRecord<S>& kept = *record_of;
  const bool needs_backward = options.is_recorded && (kept.plans.trains || x.requires_grad());
  if (needs_backward) check_gradient_compute("linear", options.compute);
  if (!kept.plans.may_divide || std::is_same_v<S, double>) kept.options.keeps_unscaled = true;
  if (!needs_backward) kept.options.keeps_unscaled = false;
  auto forward = group_forward<S>(kept.plans.layers, x.value(), kept.options);
  auto values = std::move(forward.y);
  kept.forward = std::move(forward);
  kept.round_unscaled();
  std::vector<Var<S>> outputs;
  if (!needs_backward) {
    for (auto& value : values) outputs.push_back(x.tape() ? x.tape()->input(std::move(value)) : Var<S>(std::move(value)));
    return outputs;
  }
  if (kept.plans.needs_x) kept.x = x.kept();
  kept.g.resize(group.size()), kept.y.resize(group.size());
  const bool keeps_y = kept.plans.has_gain() && !kept.options.keeps_unscaled;
  const Var<S> joint = group.size() == 1
                           ? Var<S>()
                           : record(
                                 Activation<S>(), {x}, [record_of](auto& flow) { record_of->backward(flow); }, kept.plans.trains);
  for (std::size_t i = 0; i < group.size(); ++i) {
    Var<S> y;
    if (group.size() == 1) {
      const auto backward = [record_of](auto& flow) {
        record_of->g[0] = flow.take();
        record_of->backward(flow);
      };
      y = record(std::move(values[0]), {x}, backward, kept.plans.trains).kept_as(options.compute);
    } else {
      const auto hand_in = [record_of, i](auto& flow) {
        record_of->g[i] = flow.take();
        flow.add(0, Activation<S>());
      };
      y = record(std::move(values[i]), {joint}, hand_in).kept_as(options.compute);
    }
    if (keeps_y) kept.y[i] = y.kept();
    outputs.push_back(std::move(y));
  }
  return outputs;
}

template <class S>
std::vector<Activation<S>> run_group(std::span<const GroupLayer<S>> group, const ActivationView<S>& x, GroupOptions options) {
  const GroupPlans<S> plans(group, PlanRequest<S>{});
  return std::move(group_forward<S>(plans.layers, x, options).y);
}

}  // namespace detail

#if defined(LOWRANK_COMPILING)
template std::vector<Var<float>> detail::run_group(std::span<const detail::GroupLayer<float>>, const Var<float>&, GroupOptions);
template std::vector<Activation<float>> detail::run_group(std::span<const detail::GroupLayer<float>>, const ActivationView<float>&,
                                                          GroupOptions);
template std::vector<Var<double>> detail::run_group(std::span<const detail::GroupLayer<double>>, const Var<double>&, GroupOptions);
template std::vector<Activation<double>> detail::run_group(std::span<const detail::GroupLayer<double>>, const ActivationView<double>&,
                                                           GroupOptions);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
