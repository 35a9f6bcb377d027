#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/product/packed_products.hpp>
#include <lowrank/product/plain_products.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Y = W X + s B M A X of the layers whose weights see X itself; Products is what multiplies.
template <class S, class Products>
void joint_forward(const LayerGroup<S>& group, Products&& products, GroupForward<S>& result) {
  Activation<S> room;
  result.h = products.times_a();                         // H = A X        [Σ r, T]
  const auto& mh = times_middle(group, result.h, room);  // M H            [Σ r', T]
  products.times_w_and_b(mh, result.y);                  // W X + s B M H  [out, T]
}

/// Y += s B M A D(X) + s Δ X for the tokens of one part; gives H. With dropout a gain sees W D(X) in its place, as in PEFT:
/// Y = W X + g ∘ (W D + s B M A D) − W D.
template <class S>
Activation<S> apart_forward(const LayerGroup<S>& group, const typename LayerGroup<S>::Apart& part, const ActivationView<S>& x,
                            Activation<S>& y, Activation<S>* unscaled) {
  const LayerPlan<S>& layer = group.layers[part.layer];
  const Plan<S>& plan = group.plan_of(part);
  const auto [begin, count] = part.tokens;
  auto columns = y.middleCols(begin, count);
  Activation<S> seen = x.middleCols(begin, count), h;
  if (plan.mask) seen = plan.mask(seen);
  const bool drops_rows = plan.mask && !plan.gain.empty();
  Activation<S> base, sum;
  if (drops_rows) base = multiply(layer.weight, seen, group.compute), sum = base;
  const auto add = [&](auto& to) {
    if (plan.has_factors()) {
      h = multiply(plan.a.source(), seen, group.compute);                                                        // A D(X)
      accumulate_product(to, plan.b.source(), times_middle(plan, h, group.compute), plan.scale, group.compute);  // s B M H
    }
    if (plan.has_delta()) accumulate_product(to, plan.delta, seen, plan.scale, group.compute);
  };
  if (!drops_rows) {
    add(columns);
    return h;
  }
  add(sum);
  if (unscaled) *unscaled = sum;
  columns += plan.gain.factors.asDiagonal() * sum - base;
  return h;
}

/// The parts that stand apart, those of a layer side by side.
template <class S>
void apart_forward(const LayerGroup<S>& group, const ActivationView<S>& x, std::span<const typename LayerGroup<S>::Apart> scaled,
                   bool keeps_unscaled, GroupForward<S>& result) {
  result.apart.resize(group.apart.size());
  for (std::size_t first = 0, last = 0; first < group.apart.size(); first = last) {
    const std::size_t layer = group.apart[first].layer;
    while (last < group.apart.size() && group.apart[last].layer == layer) ++last;
    const auto run = [&](Index k) {
      const std::size_t i = first + static_cast<std::size_t>(k);
      const auto& part = group.apart[i];
      const auto found = std::find(scaled.begin(), scaled.end(), part);
      Activation<S>* const unscaled =
          keeps_unscaled && found != scaled.end() ? &result.unscaled[static_cast<std::size_t>(found - scaled.begin())] : nullptr;
      result.apart[i] = apart_forward(group, part, x, result.y[layer], unscaled);
    };
    const auto count = static_cast<Index>(last - first);
    if (have_common_tokens<S>(std::span(group.apart).subspan(first, last - first)))
      for (Index k = 0; k < count; ++k) run(k);
    else
      parallel_for(count, run);
  }
}

/// g ∘ Y, or g ∘ (Y + b), for the tokens of one part; keeps what g multiplies where that is asked for.
template <class S>
void scale_rows(const LayerPlan<S>& layer, const Plan<S>& plan, TokenRange tokens, Activation<S>& y, Activation<S>* unscaled) {
  auto columns = y.middleCols(tokens.begin, tokens.count);
  if (plan.gain.scales_bias && !layer.bias.empty()) columns.colwise() += layer.bias.matrix().col(0);
  if (unscaled) *unscaled = columns;
  parallel_ranges(tokens.count, 16, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) columns.col(t) = plan.gain.factors.cwiseProduct(columns.col(t));
  });
}

/// + b of the layer, where no gain has taken it in, and + s b of each update.
template <class S>
void add_biases(const LayerPlan<S>& layer, Activation<S>& y) {
  std::vector<bool> has_bias(static_cast<std::size_t>(y.cols()), false);
  for (const auto& [index, tokens] : layer.parts)
    if (layer.plans[index].gain.scales_bias && !layer.plans[index].gain.empty())
      std::fill_n(has_bias.begin() + tokens.begin, tokens.count, true);
  if (!layer.bias.empty())
    for (Index t = 0; t < y.cols(); ++t)
      if (!has_bias[static_cast<std::size_t>(t)]) y.col(t) += layer.bias.matrix().col(0);
  for (const auto& [index, tokens] : layer.parts) {
    const Plan<S>& plan = layer.plans[index];
    if (!plan.bias.empty()) y.middleCols(tokens.begin, tokens.count).colwise() += plan.scale * plan.bias.matrix().col(0);
  }
}

template <class S>
const Activation<S>& times_middle(const LayerGroup<S>& group, const Activation<S>& h, Activation<S>& room) {
  if (std::none_of(group.joint.begin(), group.joint.end(), [](const auto& update) { return !update.plan->middle.empty(); })) return h;
  room.resize(group.rank_b, group.tokens);
  for (const auto& update : group.joint)
    room.middleRows(update.row_b, update.plan->b.cols) =
        times_middle(*update.plan, Activation<S>(h.middleRows(update.row_a, update.plan->a.rows)), group.compute);
  return room;
}
template <class S>
Activation<S> times_middle(const Plan<S>& plan, Activation<S> h, Compute compute) {
  if (plan.middle.empty()) return h;
  if (plan.middle.cols == 1) return plan.middle.matrix().col(0).asDiagonal() * h;
  return multiply(plan.middle.source(), h, compute);  // [r', r] · [r, T]
}

template <class S>
Activation<S> mapped_input(const LayerPlan<S>& layer, const ActivationView<S>& x) {
  Activation<S> mapped = x;
  for (const auto& [index, tokens] : layer.parts)
    if (const auto& map = layer.plans[index].input_map)
      mapped.middleCols(tokens.begin, tokens.count) = (*map)(x.middleCols(tokens.begin, tokens.count));
  return mapped;
}

/// Calls run with what multiplies best for the group's scalar and number of tokens, forward.
template <class S>
void multiply_forward(const LayerGroup<S>& group, const ActivationView<S>& x, const GroupOptions& options, GroupForward<S>& result) {
  if constexpr (std::is_same_v<S, float>) {
    const auto parts = static_cast<Index>(group.layers.size() + group.joint.size());
    const bool is_few = group.tokens <= kernels::few_tokens && options.streams_few && !BatchInvariant::is_on();
    if (parts <= kernels::Pieces::capacity && !is_few) return joint_forward(group, PackedProducts(group, x), result);
    if (parts <= kernels::Pieces::capacity && !options.is_recorded) return joint_forward(group, FewProducts(group, x), result);
  }
  joint_forward(group, PlainProducts<S>(group, x), result);
}

}  // namespace detail

template <class S>
GroupForward<S> group_forward(std::span<const LayerPlan<S>> layers, const ActivationView<S>& x, const GroupOptions& options) {
  const LayerGroup<S> group(layers, x.rows(), x.cols(), options.compute);
  GroupForward<S> result;
  result.y.resize(layers.size());
  detail::multiply_forward(group, x, options, result);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].has_weight())
      result.y[i] = Activation<S>::Zero(layers[i].out, x.cols());
    else if (!group.is_joint(i))
      result.y[i] = multiply(layers[i].weight, detail::mapped_input(layers[i], x), options.compute);  // W P(X)
  }
  const auto scaled = detail::scaled_parts(layers);
  result.unscaled.resize(options.keeps_unscaled ? scaled.size() : 0);
  detail::apart_forward<S>(group, x, scaled, options.keeps_unscaled, result);
  for (std::size_t k = 0; k < scaled.size(); ++k) {
    const auto& [layer, plan, tokens] = scaled[k];
    if (layers[layer].plans[plan].mask) continue;  // its rows are scaled already
    detail::scale_rows(layers[layer], layers[layer].plans[plan], tokens, result.y[layer],
                       options.keeps_unscaled ? &result.unscaled[k] : nullptr);
  }
  for (std::size_t i = 0; i < layers.size(); ++i) detail::add_biases(layers[i], result.y[i]);
  return result;
}

#if defined(LOWRANK_COMPILING)
template GroupForward<float> group_forward(std::span<const LayerPlan<float>>, const ActivationView<float>&, const GroupOptions&);
template GroupForward<double> group_forward(std::span<const LayerPlan<double>>, const ActivationView<double>&, const GroupOptions&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
