#pragma once

/// Several layers that read one X, such as query, key and value, with the plans of their updates: where each part of the products lies.

#include <algorithm>
#include <span>
#include <vector>

#include <lowrank/error.hpp>
#include <lowrank/product/plan.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A group and its tokens. A single layer is a group of one. Throws ShapeError.
///
/// Factors of plans for all tokens go into the layers' own products, stacked: H = [A₁ ; A₂ …] X. Those are joint. A part for some tokens,
/// with dropout, with an input map on its layer, or with a dense Δ, has products of its own: it stands apart.
template <class S>
struct LayerGroup {
  /// A part for all tokens, in the stacks.
  struct Joint {
    std::size_t layer;
    const Plan<S>* plan;
    Index row_a, row_b;  ///< of its H and M H in the stacks
  };
  /// A part with products of its own.
  struct Apart {
    std::size_t layer, plan;
    TokenRange tokens;
    bool operator==(const Apart&) const = default;
  };

  std::span<const LayerPlan<S>> layers;
  Index in, tokens;
  Compute compute;
  std::vector<Joint> joint = {};
  std::vector<Apart> apart = {};
  Index rank_a = 0, rank_b = 0;

  LayerGroup(std::span<const LayerPlan<S>> of, Index rows, Index count, Compute computes)
      : layers(of), in(rows), tokens(count), compute(computes) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      check<ShapeError>(layers[i].in == in, "linear", "x is [", in, ", ", tokens, "] but the layer expects in = ", layers[i].in,
                        "; x is [in, tokens]");
      for (const auto& part : layers[i].parts) sort_in(i, part);
    }
  }

  const Plan<S>& plan_of(const Apart& part) const { return layers[part.layer].plans[part.plan]; }
  /// Whether the layer's weight sees something else than X.
  static bool maps_input(const LayerPlan<S>& layer) {
    return std::any_of(layer.plans.begin(), layer.plans.end(), [](const Plan<S>& plan) { return plan.input_map != nullptr; });
  }
  /// Whether the layer's weight is multiplied with X itself, in one product with what is joint.
  bool is_joint(std::size_t layer) const { return layers[layer].has_weight() && !maps_input(layers[layer]); }
  /// The joint updates of a layer, which follow each other.
  std::span<const Joint> joint_of(std::size_t layer) const {
    const auto is_of = [layer](const Joint& update) { return update.layer == layer; };
    const auto begin = std::find_if(joint.begin(), joint.end(), is_of), end = std::find_if_not(begin, joint.end(), is_of);
    return {begin, end};
  }

 private:
  void sort_in(std::size_t i, const typename LayerPlan<S>::Part& part) {
    const LayerPlan<S>& layer = layers[i];
    const Plan<S>& plan = layer.plans[part.plan];
    const auto [begin, count] = part.tokens;
    check<ShapeError>(begin >= 0 && count >= 0 && begin + count <= tokens, "update", "tokens [", begin, ", ", begin + count,
                      ") of a batch of ", tokens);
    check_factors(layer, plan);
    const bool is_whole = begin == 0 && count == tokens;
    if (is_whole && plan.has_factors() && !plan.mask && !plan.has_delta() && is_joint(i)) {
      joint.push_back({i, &plan, rank_a, rank_b});
      rank_a += plan.a.rows, rank_b += plan.b.cols;
    } else if (count > 0) {
      apart.push_back({i, part.plan, part.tokens});
    }
  }
  static void check_factors(const LayerPlan<S>& layer, const Plan<S>& plan) {
    if (!plan.has_factors()) return;
    const bool is_square = plan.middle.empty() || plan.middle.cols == 1;
    const Index inner_a = is_square ? plan.b.cols : plan.middle.cols, inner_b = is_square ? plan.b.cols : plan.middle.rows;
    check<ShapeError>(plan.a.cols == layer.in && plan.b.rows == layer.out && plan.a.rows == inner_a && plan.b.cols == inner_b, "update",
                      "A is [", plan.a.rows, ", ", plan.a.cols, "], B is [", plan.b.rows, ", ", plan.b.cols, "] but the layer is [",
                      layer.out, ", ", layer.in, "]; A must be [rank, in] and B [out, rank]");
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
