#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/ops/lora_together.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A layer and its update, or null.
template <class S>
struct BasicLayerUse {
  BasicAdaptedLinear<S>* layer;
  LoraWeights<S>* update = nullptr;
};
/// A layer in float and its update.
using LayerUse = BasicLayerUse<float>;

namespace detail {

/// m / n of a DoRA update, of the weights as they are now or as prepare_dora() left it; empty for any other.
template <class S>
Vector<S> gain_of(const BasicLayerUse<S>& use, bool is_recorded) {
  if (!use.update || !use.update->is_dora()) return {};
  if (!is_recorded && use.update->gain.size() > 0) return use.update->gain;
  return use.layer->base.visit(
      [&](const auto& layer) { return dora_gain(use.update->magnitude.value, lowrank::dora_norms(layer, *use.update)); });
}

/// Y + b + s b_B of the base's bias and that of B, where there are any.
template <class S>
void add_biases(const BasicLayerUse<S>& use, Activation<S>& y) {
  add_bias(y, use.layer->base.bias());
  if (use.update && !use.update->bias.empty()) y.colwise() += use.update->scale * vector_of(use.update->bias);
}

/// For few tokens: [W₁; W₂ …; A₁; A₂ …] x in one pass over the memory, then B h. A and B are read in bfloat16 where the layer computes in
/// bf16 and the update was rounded for it.
template <class S>
std::vector<Activation<S>> few_together(std::span<const BasicLayerUse<S>> uses, const Activation<S>& x) {
  Index rows = 0, rank = 0;
  for (const BasicLayerUse<S>& use : uses) {
    check_input("linear", x.rows(), x.cols(), use.layer->in_features());
    rows += use.layer->out_features();
    if (use.update) rank += use.update->rank();
  }
  kernels::Pieces down(rows + rank, x.rows()), up(rows, rank);  // [W; A] and B
  Index row = 0, h = 0;
  for (const BasicLayerUse<S>& use : uses) {
    use.layer->base.visit([&](const auto& layer) { down.add(layer.source(), row, 0); });
    if (use.update) {
      const LoraWeights<S>& u = *use.update;
      const Index out = use.layer->out_features();
      if (use.layer->base.compute() != Compute::fp32 && !u.rounded_a.empty()) {
        down.add(DenseSource<bfloat16>(u.rounded_a.data(), u.rank(), x.rows()), rows + h, 0);
        up.add(DenseSource<bfloat16>(u.rounded_b.data(), out, u.rank()), row, h, u.scale);
      } else {
        down.add(u.view().a_source(), rows + h, 0);
        up.add(u.view().b_source(), row, h, u.scale);
      }
      h += u.rank();
    }
    row += use.layer->out_features();
  }
  const Compute compute = uses.front().layer->base.compute();
  Activation<S> y(rows + rank, x.cols());
  const kernels::Columns input{x.data(), x.outerStride(), x.rows()};
  kernels::multiply(down, std::span(&input, 1), x.cols(), y.data(), y.outerStride(), {.compute = compute});
  const kernels::Columns hidden{y.data() + rows, y.outerStride(), rank};
  if (rank > 0) kernels::multiply(up, std::span(&hidden, 1), x.cols(), y.data(), y.outerStride(), {.compute = compute, .accumulate = true});
  std::vector<Activation<S>> outputs;
  row = 0;
  for (const BasicLayerUse<S>& use : uses) {
    outputs.emplace_back(y.middleRows(row, use.layer->out_features()));
    if (const Vector<S> gain = gain_of(use, false); gain.size() > 0) outputs.back().array().colwise() *= gain.array();
    add_biases(use, outputs.back());
    row += use.layer->out_features();
  }
  return outputs;
}

template <class S>
std::vector<AdaptedWeight> weights_of(std::span<const BasicLayerUse<S>> uses) {
  std::vector<AdaptedWeight> weights;
  for (const BasicLayerUse<S>& use : uses) {
    const auto update = use.update ? std::optional(use.update->view()) : std::nullopt;
    use.layer->base.visit([&](const auto& layer) { weights.emplace_back(layer.source(), update); });
  }
  return weights;
}

/// What several layers of one x keep for the backward pass. Each output hands in its gradient; the group's node, which comes after them
/// in the sweep, uses them all.
template <class S>
struct TogetherRecord {
  std::vector<BasicLayerUse<S>> uses;
  std::vector<Vector<S>> gain;  ///< of DoRA updates
  std::optional<Kept<S>> x;     ///< none where no A is trained
  Activation<S> h;
  std::vector<std::optional<Kept<S>>> y;  ///< of DoRA updates
  std::vector<Activation<S>> g;
  Compute compute;

  template <class Flow>
  void backward(Flow& flow) {
    Index tokens = 0;
    for (const auto& gradient : g) tokens = std::max(tokens, gradient.cols());
    for (std::size_t i = 0; i < uses.size(); ++i) {
      if (g[i].size() == 0) g[i].setZero(uses[i].layer->out_features(), tokens);  // an output that the loss does not depend on
      if (y[i]) dora_rows(uses[i], gain[i], *y[i]->get(), g[i]);
    }
    const auto held = x ? x->get() : std::make_shared<const Activation<S>>();
    auto gradients = lora_backward_together(weights_of(std::span<const BasicLayerUse<S>>(uses)), *held, h, g, flow.needs(0), compute);
    for (std::size_t i = 0; i < uses.size(); ++i) {
      if (LoraWeights<S>* update = uses[i].update) {
        if (update->a.needs_grad()) update->a.gradient() += gradients.da[i];
        if (update->b.needs_grad()) update->b.gradient() += gradients.db[i];
      }
    }
    g.clear();
    if (flow.needs(0)) flow.add(0, std::move(gradients.dx));
  }

  /// dm = Σ_t G ∘ P / n with P = (Y − b) / (m / n), so Σ_t G ∘ (Y − b) / m; G becomes (m / n) ∘ G. No m is 0, see go_together().
  static void dora_rows(const BasicLayerUse<S>& use, const Vector<S>& gain, const Activation<S>& y, Activation<S>& g) {
    Parameter<S>& magnitude = use.update->magnitude;
    const Parameter<S>& bias = use.layer->base.bias();
    Vector<S> sums = bias.empty() ? Vector<S>::Zero(g.rows()) : Vector<S>(-vector_of(bias).cwiseProduct(g.rowwise().sum()));
    sums += scale_and_sum_rows(g, y, gain);
    if (magnitude.needs_grad()) gradient_vector(magnitude) += sums.cwiseQuotient(vector_of(magnitude));
  }
};

/// Gradients of add_biases.
template <class S>
void add_bias_gradients(const BasicLayerUse<S>& use, const Activation<S>& g) {
  add_bias_gradient(use.layer->base.bias(), g);
  if (use.update && use.update->bias.needs_grad()) gradient_vector(use.update->bias) += use.update->scale * g.rowwise().sum();
}

/// For many tokens: X packed once for all layers, recorded where a gradient is needed.
template <class S>
std::vector<Var<S>> many_together(std::span<const BasicLayerUse<S>> uses, const Var<S>& x) {
  const Compute compute = uses.front().layer->base.compute();
  auto group = std::make_shared<TogetherRecord<S>>();
  group->uses.assign(uses.begin(), uses.end());
  group->g.resize(uses.size()), group->y.resize(uses.size());
  group->compute = compute;
  std::vector<AdaptedWeight> weights = weights_of(uses);
  bool trainable = false, trains_a = false;
  for (const BasicLayerUse<S>& use : uses) {
    trainable |= use.layer->base.bias().needs_grad() || (use.update && use.update->needs_grad());
    trains_a |= use.update && use.update->a.needs_grad();
    group->gain.push_back(gain_of(use, x.tape() != nullptr));
  }
  for (std::size_t i = 0; i < uses.size(); ++i)
    if (group->gain[i].size() > 0) weights[i].scale_rows(group->gain[i].data());
  auto forward = lora_forward_together(weights, x.value(), compute);
  group->h = std::move(forward.h);
  if (trains_a && x.tape()) group->x = x.kept();
  const Var<S> joint = record(
      Activation<S>(), {x}, [group](auto& flow) { group->backward(flow); }, trainable);
  std::vector<Var<S>> outputs;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    auto backward = [group, i](auto& flow) {
      add_bias_gradients(group->uses[i], flow.gradient());
      group->g[i] = flow.take();
      flow.add(0, Activation<S>());
    };
    add_biases(uses[i], forward.y[i]);
    const bool trains_bias = uses[i].layer->base.bias().needs_grad();
    Var<S> y = record(std::move(forward.y[i]), {joint}, std::move(backward), trains_bias).kept_as(compute);
    if (group->gain[i].size() > 0 && y.requires_grad()) group->y[i] = y.kept();
    outputs.push_back(std::move(y));
  }
  return outputs;
}

/// Whether one product can serve all: frozen weights, no dropout, which gives each update an x of its own, and no DoRA length of 0, which
/// hides what was scaled by it.
template <class S>
bool go_together(std::span<const BasicLayerUse<S>> uses, const Var<S>& x) {
  for (const BasicLayerUse<S>& use : uses) {
    if (use.layer->base.weight_trainable()) return false;
    if (x.tape() == nullptr || !use.update) continue;
    if (use.update->dropout > 0 || (use.update->is_dora() && (use.update->magnitude.value.array() == 0).any())) return false;
  }
  return true;
}

}  // namespace detail

/// layer(x) of several layers for one x [in, T], recorded where a gradient is needed: one [out, T] a layer.
///
/// In float it reads x and the layers' memory once: for few tokens all weights in one pass, for many x packed once for all products,
/// forward and backward. Layers and updates must outlive the recording. Throws ShapeError.
template <class S>
std::vector<Var<S>> forward_together(std::type_identity_t<std::span<const BasicLayerUse<S>>> uses, const Var<S>& x) {
  if constexpr (std::is_same_v<S, float>) {
    if (detail::go_together(uses, x)) {
      if (x.tape() != nullptr || x.cols() > kernels::few_tokens || BatchInvariant::is_on()) return detail::many_together(uses, x);
      std::vector<Var<S>> outputs;
      for (auto& y : detail::few_together(uses, x.value())) outputs.emplace_back(std::move(y));
      return outputs;
    }
  }
  std::vector<Var<S>> outputs;
  for (const BasicLayerUse<S>& use : uses) outputs.push_back(use.layer->forward(x, use.update));
  return outputs;
}

}  // namespace lowrank::inline LOWRANK_ABI
