#pragma once

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>

#include <lowrank/core/parallel.hpp>
#include <lowrank/product/packed_products.hpp>
#include <lowrank/product/plain_products.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// dL/dW of a product: Σ_t left rightᵀ, added.
template <class S>
void add_outer(Weight<S>& sum, Index rows, Index cols, const ActivationView<S>& left, const ActivationView<S>& right, S scale,
               Compute compute) {
  if (sum.size() == 0) sum.setZero(rows, cols);
  accumulate_outer(sum, left, right, scale, compute);
}

/// dM = U Hᵀ of a plan, and Mᵀ U.
template <class S>
Activation<S> middle_backward(const Plan<S>& plan, Activation<S> u, const Activation<S>& h, PlanGradients<S>& gradients, Compute compute) {
  if (plan.middle.empty()) return u;
  const bool is_diagonal = plan.middle.cols == 1;
  if (plan.trains_middle && gradients.middle.size() == 0) gradients.middle.setZero(plan.middle.rows, plan.middle.cols);
  if (plan.trains_middle && is_diagonal) gradients.middle.col(0) += u.cwiseProduct(h).rowwise().sum();
  if (plan.trains_middle && !is_diagonal) add_outer<S>(gradients.middle, plan.middle.rows, plan.middle.cols, u, h, S(1), compute);
  if (is_diagonal) return plan.middle.matrix().col(0).asDiagonal() * u;
  return multiply_transposed(plan.middle.source(), u, compute);  // [r, r'] · [r', T]
}

template <class S>
PlanGradients<S>& gradients_of(const LayerGroup<S>& group, const typename LayerGroup<S>::Joint& update, GroupBackward<S>& result) {
  return result.plans[update.layer][static_cast<std::size_t>(update.plan - group.layers[update.layer].plans.data())];
}

/// dB = s G (M H)ᵀ of the joint updates. G of each layer [out, T], H [Σ r, T].
template <class S>
void add_b_gradients(const LayerGroup<S>& group, const Activation<S>& h, const std::vector<Activation<S>>& g, GroupBackward<S>& result) {
  if (std::none_of(group.joint.begin(), group.joint.end(), [](const auto& update) { return update.plan->trains_b; })) return;
  Activation<S> room;
  const Activation<S>& mh = times_middle(group, h, room);
  for (const auto& update : group.joint)
    if (update.plan->trains_b)
      add_outer<S>(gradients_of(group, update, result).b, update.plan->b.rows, update.plan->b.cols, g[update.layer],
                   mh.middleRows(update.row_b, update.plan->b.cols), update.plan->scale, group.compute);
}

/// Mᵀ U of the joint updates [Σ r, T], and dM. U [Σ r', T].
template <class S>
Activation<S> joint_middle_backward(const LayerGroup<S>& group, Activation<S> u, const Activation<S>& h, GroupBackward<S>& result) {
  if (std::all_of(group.joint.begin(), group.joint.end(), [](const auto& update) { return update.plan->middle.empty(); })) return u;
  Activation<S> inner(group.rank_a, group.tokens);
  for (const auto& update : group.joint) {
    const Plan<S>& plan = *update.plan;
    const Activation<S> own = plan.trains_middle ? Activation<S>(h.middleRows(update.row_a, plan.a.rows)) : Activation<S>();
    inner.middleRows(update.row_a, plan.a.rows) = middle_backward(plan, Activation<S>(u.middleRows(update.row_b, plan.b.cols)), own,
                                                                  gradients_of(group, update, result), group.compute);
  }
  return inner;
}

/// dA = Mᵀ U Xᵀ of the joint updates, all in one product. X [in, T], Mᵀ U [Σ r, T].
template <class S>
void add_a_gradients(const LayerGroup<S>& group, const Activation<S>& u, const ActivationView<S>& x, GroupBackward<S>& result) {
  if (std::none_of(group.joint.begin(), group.joint.end(), [](const auto& update) { return update.plan->trains_a; })) return;
  Weight<S> da = Weight<S>::Zero(group.rank_a, group.in);
  accumulate_outer(da, u, x, S(1), group.compute);  // [Σ r, in]
  for (const auto& update : group.joint) {
    if (!update.plan->trains_a) continue;
    const auto own = da.middleRows(update.row_a, update.plan->a.rows);
    Weight<S>& sum = gradients_of(group, update, result).a;
    sum.size() > 0 ? void(sum += own) : void(sum = own);
  }
}

/// The joint updates: dX = Σ Wᵀ G + Aᵀ Mᵀ U with U = s Bᵀ G, and the gradients of A, M and B; Products is what multiplies.
template <class S, class Products>
void joint_backward(const LayerGroup<S>& group, Products&& products, const ActivationView<S>& x, const Activation<S>& h,
                    const std::vector<Activation<S>>& g, bool needs_dx, GroupBackward<S>& result) {
  Activation<S> u = products.times_b_transposed(g);           // U = s Bᵀ G             [Σ r', T]
  add_b_gradients(group, h, g, result);                       // dB = s G (M H)ᵀ
  u = joint_middle_backward(group, std::move(u), h, result);  // Mᵀ U                   [Σ r, T]
  if (needs_dx) result.dx = products.input_gradient(g, u);    // dX = Σ Wᵀ G + Aᵀ Mᵀ U  [in, T]
  add_a_gradients<S>(group, u, x, result);                    // dA = Mᵀ U Xᵀ
}

/// Σ_t G ∘ V of each row, and G becomes g ∘ G; in parts of 64 tokens, whose sums are added in order.
template <class S>
Column<S> scale_and_sum_rows(Eigen::Ref<Activation<S>> g, const ActivationView<S>& v, const Column<S>& gain) {
  constexpr Index grain = 64;
  Activation<S> sums = Activation<S>::Zero(g.rows(), ceil_div(g.cols(), grain));
  parallel_ranges(g.cols(), grain, [&](Index begin, Index end) {
    auto sum = sums.col(begin / grain);
    for (Index t = begin; t < end; ++t) {
      sum += g.col(t).cwiseProduct(v.col(t));
      g.col(t) = gain.cwiseProduct(g.col(t));
    }
  });
  return sums.rowwise().sum();
}

/// dm = Σ_t G ∘ V / n; G becomes g ∘ G. Where V was not kept it is (Y − b) / g, so that dm = Σ_t G ∘ (Y − b) / m.
template <class S>
Column<S> gain_backward(const LayerPlan<S>& layer, const Plan<S>& plan, Eigen::Ref<Activation<S>> g, const Activation<S>* unscaled,
                        const ActivationView<S>& y) {
  const RowScale<S>& gain = plan.gain;
  const Index out = g.rows();
  if (!plan.trains_gain) {
    for (Index t = 0; t < g.cols(); ++t) g.col(t) = gain.factors.cwiseProduct(g.col(t));
    return {};
  }
  if (unscaled != nullptr) {
    Column<S> dm = scale_and_sum_rows<S>(g, *unscaled, gain.factors);
    for (Index o = 0; o < (gain.n.size() > 0 ? out : 0); ++o) dm[o] = gain.n[o] > 0 ? dm[o] / gain.n[o] : S(0);
    return dm;
  }
  Column<S> added = Column<S>::Zero(out);
  if (!layer.bias.empty() && !gain.scales_bias) added += layer.bias.matrix().col(0);
  if (!plan.bias.empty()) added += plan.scale * plan.bias.matrix().col(0);
  Column<S> sums = added.isZero(S(0)) ? Column<S>::Zero(out) : Column<S>(-added.cwiseProduct(g.rowwise().sum()));
  sums += scale_and_sum_rows<S>(g, y, gain.factors);
  return sums.cwiseQuotient(Eigen::Map<const Column<S>>(gain.m, out));
}

/// Gradients of one part that stands apart; G of the layer is scaled by the gain already unless there is dropout. Adds to dX of its tokens.
template <class S>
void apart_backward(const LayerGroup<S>& group, const typename LayerGroup<S>::Apart& part, const ActivationView<S>& x,
                    const Activation<S>& h, const Activation<S>* unscaled, const Activation<S>& g, PlanGradients<S>& gradients,
                    Activation<S>* dx) {
  const LayerPlan<S>& layer = group.layers[part.layer];
  const Plan<S>& plan = group.plan_of(part);
  const auto [begin, count] = part.tokens;
  Activation<S> own = g.middleCols(begin, count), more;
  if (plan.mask && !plan.gain.empty()) {  // Y = W X + g ∘ V(D) − W D
    const Column<S> dm = gain_backward<S>(layer, plan, own, unscaled, own);
    if (dm.size() > 0) gradients.gain = gradients.gain.size() > 0 ? Column<S>(gradients.gain + dm) : dm;
    if (dx) more = multiply_transposed(layer.weight, Activation<S>(own - g.middleCols(begin, count)), group.compute);  // Wᵀ (G' − G)
  }
  const auto add = [&](Activation<S> term) { more.size() == 0 ? void(more = std::move(term)) : void(more = term + more); };
  if (plan.has_factors()) {
    Activation<S> u = plan.scale * multiply_transposed(plan.b.source(), own, group.compute);  // s Bᵀ G   [r', t]
    if (plan.trains_b)
      add_outer<S>(gradients.b, plan.b.rows, plan.b.cols, own, times_middle(plan, h, group.compute), plan.scale, group.compute);
    u = middle_backward(plan, std::move(u), h, gradients, group.compute);
    if (plan.trains_a) {
      const Activation<S> seen = x.middleCols(begin, count);
      add_outer<S>(gradients.a, plan.a.rows, plan.a.cols, u, plan.mask ? plan.mask(seen) : seen, S(1), group.compute);
    }
    if (dx) add(multiply_transposed(plan.a.source(), u, group.compute));  // Aᵀ Mᵀ U   [in, t]
  }
  if (dx && plan.has_delta()) add(plan.scale * multiply_transposed(plan.delta, own, group.compute));
  if (plan.trains_delta) {
    const Activation<S> seen = x.middleCols(begin, count);
    add_outer<S>(gradients.delta, layer.out, layer.in, own, plan.mask ? plan.mask(seen) : seen, plan.scale, group.compute);
  }
  if (dx && more.size() > 0) dx->middleCols(begin, count) += plan.mask ? plan.mask(more) : more;
}

/// All parts that stand apart; those of one plan add into the same gradient, in their order.
template <class S>
void apart_backward(const LayerGroup<S>& group, const ActivationView<S>& x, const GroupForward<S>& forward,
                    std::span<const typename LayerGroup<S>::Apart> scaled, const std::vector<Activation<S>>& g, Activation<S>* dx,
                    GroupBackward<S>& result) {
  const auto unscaled_of = [&](const auto& part) -> const Activation<S>* {
    const auto found = static_cast<std::size_t>(std::find(scaled.begin(), scaled.end(), part) - scaled.begin());
    return found < forward.unscaled.size() ? &forward.unscaled[found] : nullptr;
  };
  for (std::size_t layer = group.layers.size(); layer-- > 0;) {
    const auto run = [&](Index plan) {
      for (std::size_t i = 0; i < group.apart.size(); ++i) {
        const auto& part = group.apart[i];
        if (part.layer != layer || part.plan != static_cast<std::size_t>(plan)) continue;
        const Activation<S> none;  // where no gradient needs H
        apart_backward(group, part, x, i < forward.apart.size() ? forward.apart[i] : none, unscaled_of(part), g[layer],
                       result.plans[layer][part.plan], dx);
      }
    };
    const auto plans = static_cast<Index>(group.layers[layer].plans.size());
    std::vector<typename LayerGroup<S>::Apart> own;
    std::copy_if(group.apart.begin(), group.apart.end(), std::back_inserter(own), [&](const auto& part) { return part.layer == layer; });
    if (have_common_tokens<S>(own))
      for (Index plan = 0; plan < plans; ++plan) run(plan);
    else
      parallel_for(plans, run);
  }
}

/// dX += Pᵀ Wᵀ G of a layer with input maps, and what their gradients are made of: X and Wᵀ G.
template <class S>
void mapped_backward(const LayerPlan<S>& layer, const ActivationView<S>& x, const Activation<S>& g, Activation<S>* dx,
                     std::vector<PlanGradients<S>>& gradients, Compute compute) {
  Activation<S> mapped = multiply_transposed(layer.weight, g, compute);  // Wᵀ G   [in, T]
  const auto append = [](Activation<S>& to, const auto& columns) {
    to.conservativeResize(columns.rows(), to.cols() + columns.cols());
    to.rightCols(columns.cols()) = columns;
  };
  for (const auto& [index, tokens] : layer.parts) {
    const Plan<S>& plan = layer.plans[index];
    if (!plan.input_map) continue;
    auto columns = mapped.middleCols(tokens.begin, tokens.count);
    if (plan.trains_input_map) {
      append(gradients[index].x, x.middleCols(tokens.begin, tokens.count));
      append(gradients[index].mapped, columns);
    }
    if (dx) columns = plan.input_map->transposed(columns).eval();
  }
  if (dx) *dx += mapped;
}

/// Gradients of the biases: of the layer's b by the G that it meets, of an update's s Σ_t G. Then G becomes g ∘ G, with the gains' own.
template <class S>
void added_backward(std::span<const LayerPlan<S>> layers, const GroupForward<S>& forward,
                    const std::vector<std::shared_ptr<const Activation<S>>>& y, std::span<const typename LayerGroup<S>::Apart> scaled,
                    std::vector<Activation<S>>& g, GroupBackward<S>& result) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    for (const auto& [index, tokens] : layers[i].parts) {
      const Plan<S>& plan = layers[i].plans[index];
      if (!plan.trains_bias) continue;
      Column<S>& sum = result.plans[i][index].bias;
      if (sum.size() == 0) sum.setZero(layers[i].out);
      sum += plan.scale * g[i].middleCols(tokens.begin, tokens.count).rowwise().sum();
    }
    if (!layers[i].trains_bias) continue;
    result.bias[i].setZero(layers[i].out);
    for (Index t = 0; t < g[i].cols(); ++t) result.bias[i] += g[i].col(t);
  }
  for (std::size_t k = 0; k < scaled.size(); ++k) {
    const auto& [i, index, tokens] = scaled[k];
    const Plan<S>& plan = layers[i].plans[index];
    if (plan.mask) continue;  // with the part itself
    auto columns = g[i].middleCols(tokens.begin, tokens.count);
    const bool meets_scaled = layers[i].trains_bias && plan.gain.scales_bias;
    if (meets_scaled) result.bias[i] -= columns.rowwise().sum();
    const Activation<S>* const unscaled = forward.unscaled.empty() ? nullptr : &forward.unscaled[k];
    const Activation<S> none(layers[i].out, 0);
    Column<S> dm = gain_backward<S>(layers[i], plan, columns, unscaled,
                                    unscaled || !plan.trains_gain ? ActivationView<S>(none) : y[i]->middleCols(tokens.begin, tokens.count));
    if (meets_scaled) result.bias[i] += columns.rowwise().sum();
    Column<S>& sum = result.plans[i][index].gain;
    if (dm.size() > 0) sum = sum.size() > 0 ? Column<S>(sum + dm) : std::move(dm);
  }
}

/// Calls joint_backward with what multiplies best for the group's scalar and number of tokens.
template <class S>
void multiply_backward(const LayerGroup<S>& group, const ActivationView<S>& x, const Activation<S>& h, const std::vector<Activation<S>>& g,
                       bool needs_dx, const GroupOptions& options, GroupBackward<S>& result) {
  if constexpr (std::is_same_v<S, float>) {
    const bool is_few = group.tokens <= kernels::few_tokens && options.streams_few;
    if (static_cast<Index>(group.layers.size() + group.joint.size()) <= kernels::Pieces::capacity && !is_few)
      return joint_backward(group, PackedGradients(group), x, h, g, needs_dx, result);
  }
  joint_backward(group, PlainProducts<S>(group), x, h, g, needs_dx, result);
}

}  // namespace detail

template <class S>
GroupBackward<S> group_backward(std::span<const LayerPlan<S>> layers, const ActivationView<S>& x, const GroupForward<S>& forward,
                                const std::vector<std::shared_ptr<const Activation<S>>>& y, std::vector<Activation<S>> g, bool needs_dx,
                                const GroupOptions& options) {
  const Index in = layers.front().in, tokens = g.front().cols();
  const LayerGroup<S> group(layers, in, tokens, options.compute);
  const auto scaled = detail::scaled_parts(layers);
  GroupBackward<S> result;
  result.bias.resize(layers.size());
  for (const auto& layer : layers) result.plans.emplace_back(layer.plans.size());
  detail::added_backward<S>(layers, forward, y, scaled, g, result);
  Activation<S> more;
  const bool is_split = !group.apart.empty() || std::any_of(layers.begin(), layers.end(), LayerGroup<S>::maps_input);
  if (is_split && needs_dx) more.setZero(in, tokens);
  Activation<S>* const dx = needs_dx ? &more : nullptr;
  detail::apart_backward<S>(group, x, forward, scaled, g, dx, result);
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (layers[i].has_weight() && !group.is_joint(i)) detail::mapped_backward(layers[i], x, g[i], dx, result.plans[i], options.compute);
  bool has_joint = false;
  for (std::size_t i = 0; i < layers.size(); ++i) has_joint |= group.is_joint(i);
  if (has_joint && (needs_dx || !group.joint.empty())) detail::multiply_backward(group, x, forward.h, g, needs_dx, options, result);
  if (more.size() > 0) result.dx.size() > 0 ? void(result.dx = more + result.dx) : void(result.dx = std::move(more));
  return result;
}

#if defined(LOWRANK_COMPILING)
template GroupBackward<float> group_backward(std::span<const LayerPlan<float>>, const ActivationView<float>&, const GroupForward<float>&,
                                             const std::vector<std::shared_ptr<const Activation<float>>>&, std::vector<Activation<float>>,
                                             bool, const GroupOptions&);
template GroupBackward<double> group_backward(std::span<const LayerPlan<double>>, const ActivationView<double>&,
                                              const GroupForward<double>&, const std::vector<std::shared_ptr<const Activation<double>>>&,
                                              std::vector<Activation<double>>, bool, const GroupOptions&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
