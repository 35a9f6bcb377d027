#pragma once

#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/nn/adapted_linear.hpp>

/// Another update for each range of tokens of one batch: the base product is done once for all, the updates side by side.

namespace lowrank::inline LOWRANK_ABI {

/// Tokens [begin, begin + count) of a batch and their update, or null for the bare base. Ranges of a batch do not overlap.
template <class S>
struct BasicUpdateRange {
  Index begin, count;
  LoraWeights<S>* update = nullptr;
};
/// A range whose update is in float.
using UpdateRange = BasicUpdateRange<float>;

namespace detail {

/// One range's forward pass and what its backward pass needs.
template <class S>
struct RangeRecord {
  BasicUpdateRange<S> range;
  Mask mask;
  Activation<S> x;        ///< mask(X) of the range; empty where A is not trained
  Activation<S> h;        ///< A mask(X)
  Activation<S> p;        ///< DoRA: V X before scaling
  Vector<S> gain, norms;  ///< DoRA
};

template <class S>
Activation<S> masked(const RangeRecord<S>& record, const Activation<S>& x) {
  const Activation<S> part = x.middleCols(record.range.begin, record.range.count);
  return record.mask ? record.mask(part) : part;
}

/// Y of the range becomes Y + s B A X + s b_B, for DoRA b + (m / n) ∘ (Y − b + s B A X); on the calling thread. Dropout is on the input of
/// the update alone: with D = mask(X) Y + s B A D, for DoRA Y + (m / n) ∘ (W D + s B A D) − W D.
template <class S>
void add_range(RangeRecord<S>& record, const BasicAnyLinear<S>& base, const Activation<S>& x, const Vector<S>& bias, bool is_recorded,
               Activation<S>& y) {
  LoraWeights<S>& update = *record.range.update;
  const Compute compute = base.compute();
  Activation<S> part = masked(record, x);
  auto columns = y.middleCols(record.range.begin, record.range.count);
  record.h = multiply(update.view().a_source(), part, compute);  // [r, in] · [in, t]
  const bool drops_rows = update.is_dora() && record.mask;
  Activation<S> sum = drops_rows ? base.product(part) : Activation<S>(columns), rest;  // W D, or W X + b
  if (drops_rows) rest = columns - sum;
  accumulate_product(sum, update.view().b_source(), record.h, update.scale, compute);  // [out, r] · [r, t]
  if (update.is_dora()) {
    if (bias.size() > 0 && !drops_rows) sum.colwise() -= bias;
    if (is_recorded) record.p = sum;
    sum.array().colwise() *= record.gain.array();
    if (bias.size() > 0 && !drops_rows) sum.colwise() += bias;
    if (drops_rows) sum += rest;
  }
  if (!update.bias.empty()) sum.colwise() += update.scale * vector_of(update.bias);
  columns = sum;
  if (is_recorded && update.a.needs_grad()) record.x = std::move(part);
}

/// Gradients of add_range: G of the range becomes that of the base's product, dX of the range gets s Aᵀ Bᵀ G.
template <class S>
void range_backward(const RangeRecord<S>& record, const BasicAnyLinear<S>& base, bool need_dx, Activation<S>& g, Activation<S>& dx) {
  LoraWeights<S>& update = *record.range.update;
  const Compute compute = base.compute();
  auto columns = g.middleCols(record.range.begin, record.range.count);
  Activation<S> part = columns, beside;
  if (update.bias.needs_grad()) gradient_vector(update.bias) += update.scale * part.rowwise().sum();
  if (update.is_dora()) {
    auto dora = dora_backward<S>(record.p, record.gain, record.norms, std::move(part));
    if (update.magnitude.needs_grad()) gradient_vector(update.magnitude) += dora.dm;
    part = std::move(dora.dp);
    if (record.mask && need_dx) beside = base.transposed_product(Activation<S>(part - columns));  // Wᵀ ((m / n) ∘ G − G)   [in, t]
    if (!record.mask) columns = part;
  }
  const LowRank<S> view = update.view();
  const Activation<S> u = update.scale * multiply_transposed(view.b_source(), part, compute);    // s Bᵀ G   [r, t]
  if (update.a.needs_grad()) accumulate_outer(update.a.gradient(), u, record.x, S(1), compute);  // u Xᵀ
  if (update.b.needs_grad()) accumulate_outer(update.b.gradient(), part, record.h, update.scale, compute);
  if (!need_dx) return;
  Activation<S> more = multiply_transposed(view.a_source(), u, compute);  // Aᵀ u   [in, t]
  if (beside.size() > 0) more += beside;
  if (record.mask) more = record.mask(more);
  dx.middleCols(record.range.begin, record.range.count) = more;
}

/// Groups of ranges that may go on at the same time: those of one update add into the same gradient, in their order.
template <class S>
std::vector<std::vector<std::size_t>> by_update(const std::vector<RangeRecord<S>>& records) {
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const auto same = std::find_if(groups.begin(), groups.end(),
                                   [&](const auto& group) { return records[group.front()].range.update == records[i].range.update; });
    same == groups.end() ? groups.push_back({i}) : same->push_back(i);
  }
  return groups;
}

/// The ranges that have an update, with their masks and row factors.
template <class S>
std::vector<RangeRecord<S>> range_records(const BasicAnyLinear<S>& base, const Var<S>& x, std::span<const BasicUpdateRange<S>> ranges) {
  std::vector<RangeRecord<S>> records;
  for (const BasicUpdateRange<S>& range : ranges) {
    if (!range.update || range.count == 0) continue;
    check<ShapeError>(range.begin >= 0 && range.begin + range.count <= x.cols(), "update_ranges", "tokens [", range.begin, ", ",
                      range.begin + range.count, ") of a batch of ", x.cols());
    LoraWeights<S>& update = *range.update;
    check<ShapeError>(update.a.cols() == base.in_features() && update.b.rows() == base.out_features(), "update_ranges", "A is [",
                      update.a.rows(), ", ", update.a.cols(), "], B is [", update.b.rows(), ", ", update.b.cols(), "] but the layer is [",
                      base.out_features(), ", ", base.in_features(), ']');
    RangeRecord<S> record{range, next_mask(update, x), {}, {}, {}, {}, {}};
    if (update.is_dora()) {
      check<ValueError>(!base.bias().needs_grad(), "update_ranges",
                        "DoRA over a bias that is trained itself is not supported where ranges have updates of their own; freeze the bias");
      record.norms = base.visit([&](const auto& layer) { return lowrank::dora_norms(layer, update); });
      record.gain = x.tape() == nullptr && update.gain.size() > 0 ? update.gain : dora_gain(update.magnitude.value, record.norms);
    }
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace detail

/// Y = layer(X) of a frozen layer becomes each range's adapted output, recorded: s B A X added to its tokens, for DoRA its rows scaled.
///
/// Y [out, T], X [in, T]. LoRA, DoRA, biases of B; ranks may differ. Cost: what each update costs for its tokens; threads share the
/// ranges. Layer and updates must outlive the recording. Throws ShapeError, ValueError.
template <class S>
Var<S> add_updates(Var<S> y, const Var<S>& x, const BasicAdaptedLinear<S>& layer,
                   std::type_identity_t<std::span<const BasicUpdateRange<S>>> ranges) {
  auto records = std::make_shared<std::vector<detail::RangeRecord<S>>>(detail::range_records(layer.base, x, ranges));
  if (records->empty()) return y;
  check<ValueError>(!layer.base.weight_trainable(), "update_ranges", "the base is trained itself; freeze it with set_trainable(false)");
  const Vector<S> bias = layer.base.bias().empty() ? Vector<S>() : Vector<S>(detail::vector_of(layer.base.bias()));
  bool trainable = false;
  for (const auto& record : *records) trainable |= record.range.update->needs_grad();
  const bool is_recorded = x.tape() != nullptr && (trainable || x.requires_grad());
  Activation<S> z = y.take();
  parallel_for(static_cast<Index>(records->size()),
               [&](Index i) { detail::add_range((*records)[static_cast<std::size_t>(i)], layer.base, x.value(), bias, is_recorded, z); });
  auto backward = [records, base = &layer.base, rows = x.rows()](auto& flow) {
    Activation<S> g = flow.take();
    Activation<S> dx;
    if (flow.needs(1)) dx.setZero(rows, g.cols());
    const auto groups = detail::by_update(*records);
    parallel_for(static_cast<Index>(groups.size()), [&](Index i) {
      for (const std::size_t r : groups[static_cast<std::size_t>(i)]) detail::range_backward((*records)[r], *base, flow.needs(1), g, dx);
    });
    if (flow.needs(1)) flow.add(1, std::move(dx));
    flow.add(0, std::move(g));
  };
  return record(std::move(z), {y, x}, std::move(backward), trainable).kept_as(layer.base.compute());
}

}  // namespace lowrank::inline LOWRANK_ABI
