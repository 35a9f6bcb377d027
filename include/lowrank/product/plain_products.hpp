#pragma once

/// Products of a group one after the other, for any scalar: double, which checks gradients, and float for few tokens.

#include <utility>
#include <vector>

#include <lowrank/product/group.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What group_forward and group_backward ask of a device: the products of a group's joint updates. X [in, T]; G of each layer [out, T].
template <class S>
class PlainProducts {
 public:
  PlainProducts(const LayerGroup<S>& group, const ActivationView<S>& x) : group_(group), x_(&x) {}
  explicit PlainProducts(const LayerGroup<S>& group) : group_(group) {}

  /// H = A X of every update, stacked [Σ r, T].
  Activation<S> times_a() const {
    Activation<S> h(group_.rank_a, group_.tokens);
    for (const auto& [layer, plan, row, unused] : group_.joint)
      h.middleRows(row, plan->a.rows) = multiply(plan->a.source(), *x_, group_.compute);  // [r, in] · [in, T]
    return h;
  }
  /// W X + s B H of every layer, H stacked [Σ r', T].
  void times_w_and_b(const Activation<S>& h, std::vector<Activation<S>>& y) const {
    for (std::size_t i = 0; i < group_.layers.size(); ++i) {
      if (!group_.is_joint(i)) continue;
      const auto updates = group_.joint_of(i);
      const WeightView& w = group_.layers[i].weight;
      y[i] = updates.empty() ? multiply(w, *x_, group_.compute)
                             : multiply_sum(w, *x_, scaled_b(updates[0]), rows_of(updates[0], h), group_.compute);
      for (std::size_t k = 1; k < updates.size(); ++k)
        accumulate_product(y[i], scaled_b(updates[k]), rows_of(updates[k], h), S(1), group_.compute);
    }
  }

  /// U = s Bᵀ G of every update, stacked [Σ r', T].
  Activation<S> times_b_transposed(const std::vector<Activation<S>>& g) const {
    Activation<S> u = Activation<S>::Zero(group_.rank_b, group_.tokens);
    for (const auto& [layer, plan, unused, row] : group_.joint) {
      auto rows = u.middleRows(row, plan->b.cols);
      accumulate_transposed_product(rows, plan->b.source(), g[layer], plan->scale, group_.compute);  // [r', out] · [out, T]
    }
    return u;
  }
  /// Σ Wᵀ G + Aᵀ U of all layers [in, T], U stacked [Σ r, T].
  Activation<S> input_gradient(const std::vector<Activation<S>>& g, const Activation<S>& u) const {
    Activation<S> dx;
    for (std::size_t i = group_.layers.size(); i-- > 0;) {  // the last first, as a tape sweeps
      if (!group_.is_joint(i)) continue;
      const auto updates = group_.joint_of(i);
      const auto w = transposed(group_.layers[i].weight);
      Activation<S> part = updates.empty() ? multiply(w, g[i], group_.compute)
                                           : multiply_sum(w, g[i], turned_a(updates[0]), inner_rows_of(updates[0], u), group_.compute);
      for (std::size_t k = 1; k < updates.size(); ++k)
        accumulate_product(part, turned_a(updates[k]), inner_rows_of(updates[k], u), S(1), group_.compute);
      dx.size() == 0 ? void(dx = std::move(part)) : void(dx += part);
    }
    return dx;
  }

 private:
  using Joint = typename LayerGroup<S>::Joint;
  static auto scaled_b(const Joint& update) { return scaled(update.plan->b.source(), static_cast<double>(update.plan->scale)); }
  static auto turned_a(const Joint& update) { return transposed(update.plan->a.source()); }
  static Activation<S> rows_of(const Joint& update, const Activation<S>& h) { return h.middleRows(update.row_b, update.plan->b.cols); }
  static Activation<S> inner_rows_of(const Joint& update, const Activation<S>& u) {
    return u.middleRows(update.row_a, update.plan->a.rows);
  }

  const LayerGroup<S>& group_;
  const ActivationView<S>* x_ = nullptr;
};

}  // namespace lowrank::inline LOWRANK_ABI
