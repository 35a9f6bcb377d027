#pragma once

/// Layers of one x with updates that are handed in, as a model runs them: some LoRA, some bare, some DoRA.

#include <deque>
#include <optional>

#include <lowrank/nn/forward_together.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>
#include <lowrank/update/dora.hpp>

#include "problems.hpp"

namespace pins {

enum class Method { none, lora, biased, dora };

/// An update of a layer, moved from where it begins.
template <class S>
DoraWeights<S> drawn_update(const BasicAdaptedLinear<S>& layer, Method method, Index rank, std::uint64_t seed, double dropout = 0) {
  DoraWeights<S> update{make_lora<S>(
      layer.in_features(), layer.out_features(),
      {.rank = rank, .alpha = 1.5 * static_cast<double>(rank), .dropout = dropout, .lora_bias = method == Method::biased, .seed = seed})};
  fill_uniform(update.b.value, 0.3, Random(seed + 1));
  if (method == Method::dora) update.begin(lowrank::detail::layer_view(layer.base));
  move_update(update, seed + 2);
  return update;
}

/// NF4 with a bias, Q4_1 without, a dense weight: [48, 128], [72, 128], [40, 128].
template <class S>
std::vector<BasicAdaptedLinear<S>> drawn_layers(Compute compute) {
  using Layer = BasicAnyLinear<S>;
  Linear<S> dense(drawn_weight<S>(40, 128, 13));
  dense.set_trainable(false);
  std::vector<BasicAdaptedLinear<S>> layers;
  layers.emplace_back(Layer(AnyMatrix(quantize<Nf4<64>>(drawn_weight(48, 128, 11))), drawn_vector<S>(48, 14)));
  layers.emplace_back(Layer(AnyMatrix(quantize<Q4_1>(drawn_weight(72, 128, 12)))));
  layers.emplace_back(Layer(std::move(dense)));
  for (auto& layer : layers) layer.base.set_compute(compute);
  return layers;
}

/// The layers with an update each, or none.
template <class S = float>
struct Together {
  std::vector<BasicAdaptedLinear<S>> layers;
  std::vector<std::optional<DoraWeights<S>>> updates;

  Together(Compute compute, const std::vector<Method>& methods, double dropout = 0) : layers(drawn_layers<S>(compute)) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      updates.emplace_back();
      if (methods[i] != Method::none) updates[i] = drawn_update(layers[i], methods[i], static_cast<Index>(3 + 2 * i), 20 + 10 * i, dropout);
    }
  }
  DoraWeights<S>* update(std::size_t i) { return updates[i] ? &*updates[i] : nullptr; }

  /// Outputs of one call for all.
  std::vector<Var<S>> together(const Var<S>& x) {
    std::vector<BasicLayerUse<S>> uses;
    for (std::size_t i = 0; i < layers.size(); ++i) uses.push_back({&layers[i], update(i)});
    return forward_together(uses, x);
  }
  /// Outputs of a call each.
  std::vector<Var<S>> alone(const Var<S>& x) {
    std::vector<Var<S>> outputs;
    for (std::size_t i = 0; i < layers.size(); ++i) outputs.push_back(layers[i].forward(x, update(i)));
    return outputs;
  }

  void clear() {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers[i].visit_parameters([](auto& parameter) { clear_gradient(parameter); });
      if (updates[i]) clear_gradients(*updates[i]);
    }
  }
  void add_all_gradients(Results& results, const std::string& name) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string layer = name + "/" + std::to_string(i);
      if (updates[i]) add_gradients(results, layer, *updates[i]);
      if (layers[i].base.bias().needs_grad()) results.add(layer + "/base_bias", layers[i].base.bias().grad);
    }
  }
};

inline constexpr auto together = [](auto& group, const auto& x) { return group.together(x); };
inline constexpr auto alone = [](auto& group, const auto& x) { return group.alone(x); };

/// Outputs and gradients of forward(group, x); the loss is Σ y², of the outputs that `used` names.
template <class S, class Forward>
void pin_forward(Results& results, const std::string& name, Together<S>& group, Index tokens, const Forward& forward,
                 const std::vector<std::size_t>& used) {
  const auto x = drawn_columns<S>(128, tokens, 1);
  for (const Var<S>& y : forward(group, Var<S>(x))) results.add(name + "/y", y.value());
  group.clear();
  Tape<S> tape;
  const Var<S> input = tape.variable(x);
  const auto y = forward(group, input);
  Var<S> loss = sum(y[used[0]] * y[used[0]]);
  for (std::size_t i = 1; i < used.size(); ++i) loss = loss + sum(y[used[i]] * y[used[i]]);
  tape.backward(loss);
  for (const Var<S>& output : y) results.add(name + "/taped", output.value());
  results.add(name + "/dx", tape.gradient(input));
  group.add_all_gradients(results, name);
}

template <class S>
struct DrawnRange {
  Index begin, count;
  DoraWeights<S>* update;
};

/// A batch whose tokens lie in ranges with an update each: outputs and gradients. Those of an x that needs none are "of_frozen_x".
template <class S>
void pin_ranges(Results& results, const std::string& name, BasicAdaptedLinear<S>& layer, const std::vector<DrawnRange<S>>& drawn) {
  const auto& ranges = drawn;
  std::vector<BasicUpdateRange<S>> handed;
  for (const auto& [begin, count, update] : drawn) handed.push_back({begin, count, update});
  const auto run = [&](const Var<S>& x) { return lowrank::detail::adapted(layer.base, {}, handed, x); };
  const Index tokens = ranges.back().begin + ranges.back().count;
  const auto x = drawn_columns<S>(layer.in_features(), tokens, 1), g = drawn_columns<S>(layer.out_features(), tokens, 2);
  results.add(name + "/y", run(Var<S>(x)).value());
  const auto sweep = [&](Tape<S>& tape, const Var<S>& input) {
    for (const auto& range : ranges)
      if (range.update) clear_gradients(*range.update);
    const Var<S> y = run(input);
    tape.backward(y, g);
    return y;
  };
  Tape<S> tape;
  const Var<S> input = tape.variable(x);
  results.add(name + "/taped", sweep(tape, input).value());
  results.add(name + "/dx", tape.gradient(input));
  for (const auto& range : ranges)
    if (range.update) add_gradients(results, name + "/of_" + std::to_string(range.begin), *range.update);
  Tape<S> other;
  sweep(other, other.input(x));
  for (const auto& range : ranges)
    if (range.update) results.add(name + "/of_frozen_x", range.update->a.grad), results.add(name + "/of_frozen_x", range.update->b.grad);
}

}  // namespace pins
