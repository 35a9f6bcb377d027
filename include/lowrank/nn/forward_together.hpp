#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/ops/lora_together.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A layer and its update, or null.
struct LayerUse {
  AdaptedLinear* layer;
  LoraWeights<float>* update = nullptr;
};

namespace detail {

/// For few tokens: [W₁; W₂ …; A₁; A₂ …] x in one pass over the memory, then B h. A and B are read in bfloat16 where the layer computes in
/// bf16 and the update was rounded for it.
inline std::vector<Activation<float>> few_together(std::span<const LayerUse> uses, const Activation<float>& x) {
  Index rows = 0, rank = 0;
  for (const LayerUse& use : uses) {
    check_input("linear", x.rows(), x.cols(), use.layer->in_features());
    rows += use.layer->out_features();
    if (use.update) rank += use.update->rank();
  }
  kernels::Pieces down(rows + rank, x.rows()), up(rows, rank);  // [W; A] and B
  Index row = 0, h = 0;
  for (const LayerUse& use : uses) {
    use.layer->base.visit([&](const auto& layer) { down.add(layer.source(), row, 0); });
    if (use.update) {
      const LoraWeights<float>& u = *use.update;
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
  Activation<float> y(rows + rank, x.cols());
  const kernels::Columns input{x.data(), x.outerStride(), x.rows()};
  kernels::multiply(down, std::span(&input, 1), x.cols(), y.data(), y.outerStride(), {.compute = compute});
  const kernels::Columns hidden{y.data() + rows, y.outerStride(), rank};
  if (rank > 0) kernels::multiply(up, std::span(&hidden, 1), x.cols(), y.data(), y.outerStride(), {.compute = compute, .accumulate = true});
  std::vector<Activation<float>> outputs;
  row = 0;
  for (const LayerUse& use : uses) {
    outputs.emplace_back(y.middleRows(row, use.layer->out_features()));
    add_bias(outputs.back(), use.layer->base.bias());
    row += use.layer->out_features();
  }
  return outputs;
}

inline std::vector<AdaptedWeight> weights_of(std::span<const LayerUse> uses) {
  std::vector<AdaptedWeight> weights;
  for (const LayerUse& use : uses) {
    const auto update = use.update ? std::optional(use.update->view()) : std::nullopt;
    use.layer->base.visit([&](const auto& layer) { weights.emplace_back(layer.source(), update); });
  }
  return weights;
}

/// What several layers of one x keep for the backward pass. Each output hands in its gradient; the group's node, which comes after them
/// in the sweep, uses them all.
struct TogetherRecord {
  std::vector<LayerUse> uses;
  std::optional<Kept<float>> x;  ///< none where no update has a gradient
  Activation<float> h;
  std::vector<Activation<float>> g;
  Compute compute;

  template <class Flow>
  void backward(Flow& flow) {
    Index tokens = 0;
    for (const auto& gradient : g) tokens = std::max(tokens, gradient.cols());
    for (std::size_t i = 0; i < uses.size(); ++i)  // an output that the loss does not depend on
      if (g[i].size() == 0) g[i].setZero(uses[i].layer->out_features(), tokens);
    const auto held = x ? x->get() : std::make_shared<const Activation<float>>();
    auto gradients = lora_backward_together(weights_of(uses), *held, h, g, flow.needs(0), compute);
    for (std::size_t i = 0; i < uses.size(); ++i) {
      if (LoraWeights<float>* update = uses[i].update) {
        if (update->a.needs_grad()) update->a.gradient() += gradients.da[i];
        if (update->b.needs_grad()) update->b.gradient() += gradients.db[i];
      }
    }
    g.clear();
    if (flow.needs(0)) flow.add(0, std::move(gradients.dx));
  }
};

/// For many tokens: X packed once for all layers, recorded where a gradient is needed.
inline std::vector<Var<float>> many_together(std::span<const LayerUse> uses, const Var<float>& x) {
  const Compute compute = uses.front().layer->base.compute();
  auto forward = lora_forward_together(weights_of(uses), x.value(), compute);
  bool has_update = false, trainable = false;
  for (const LayerUse& use : uses) has_update |= use.update != nullptr, trainable |= use.update && use.update->needs_grad();
  auto group = std::make_shared<TogetherRecord>();
  group->uses.assign(uses.begin(), uses.end());
  group->g.resize(uses.size());
  group->h = std::move(forward.h);
  group->compute = compute;
  if (has_update && x.tape()) group->x = x.kept();
  const Var<float> joint = record(
      Activation<float>(), {x}, [group](auto& flow) { group->backward(flow); }, trainable);
  std::vector<Var<float>> outputs;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    auto backward = [group, i](auto& flow) {
      group->g[i] = flow.take();
      flow.add(0, Activation<float>());
    };
    Var<float> y = record(std::move(forward.y[i]), {joint}, std::move(backward)).kept_as(compute);
    outputs.push_back(add_bias(std::move(y), uses[i].layer->base.bias()));
  }
  return outputs;
}

/// Whether one product can serve all: frozen weights, and no dropout, which gives each update an x of its own.
inline bool go_together(std::span<const LayerUse> uses, const Var<float>& x) {
  for (const LayerUse& use : uses)
    if (use.layer->base.weight_trainable() || (x.tape() && use.update && use.update->dropout > 0)) return false;
  return true;
}

}  // namespace detail

/// layer(x) of several layers for one x [in, T], recorded where a gradient is needed: one [out, T] a layer.
///
/// Reads x and the layers' memory once: for few tokens all weights in one pass, for many x packed once for all products, forward and
/// backward. Layers and updates must outlive the recording. Throws ShapeError.
inline std::vector<Var<float>> forward_together(std::span<const LayerUse> uses, const Var<float>& x) {
  std::vector<Var<float>> outputs;
  if (!detail::go_together(uses, x)) {
    for (const LayerUse& use : uses) outputs.push_back(use.layer->forward(x, use.update));
  } else if (x.tape() == nullptr && x.cols() <= kernels::few_tokens) {
    for (auto& y : detail::few_together(uses, x.value())) outputs.emplace_back(std::move(y));
  } else {
    outputs = detail::many_together(uses, x);
  }
  return outputs;
}

}  // namespace lowrank::inline LOWRANK_ABI
