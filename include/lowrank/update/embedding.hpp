#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/update/dora.hpp>
#include <lowrank/autograd/functions.hpp>
#include <lowrank/ops/embedding.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Y + s B A[:, ids] at the tokens [begin, begin + ids), recorded: a low-rank update of an embedding table. A [r, vocabulary], B [dim, r].
///
/// Y [dim, T] are the table's own columns. Cost: 2 dim r FLOPs a token. Throws ShapeError, ValueError for an id outside the vocabulary.
template <class S>
Var<S> add_embedding_update(Var<S> y, std::span<const std::int32_t> ids, Index begin, LoraWeights<S>& update) {
  const Index count = static_cast<Index>(ids.size()), rank = update.rank();
  check<ShapeError>(update.b.rows() == y.rows() && begin >= 0 && begin + count <= y.cols(), "embedding_lora", "y is [", y.rows(), ", ",
                    y.cols(), "], B is [", update.b.rows(), ", ", rank, "], tokens are [", begin, ", ", begin + count, ')');
  detail::check_ids("embedding_lora", ids, update.a.cols());
  Activation<S> h(rank, count);
  for (Index t = 0; t < count; ++t) h.col(t) = update.a.value.col(ids[static_cast<std::size_t>(t)]);
  Activation<S> z = y.take();
  auto updated = z.middleCols(begin, count);
  accumulate_product(updated, factor(update.b).source(), h, update.scale);  // [dim, r] · [r, t]
  auto backward = [a = Handle(update.a), b = Handle(update.b), scale = update.scale, begin, count, h = std::move(h),
                   ids = std::vector<std::int32_t>(ids.begin(), ids.end())](auto& flow) {
    const Activation<S> g = scale * flow.gradient().middleCols(begin, count);
    if (b->needs_grad()) accumulate_outer(b->gradient(), g, h);  // s G Hᵀ   [dim, r]
    if (a->needs_grad()) {
      const Activation<S> dh = multiply_transposed(factor(*b).source(), g);  // s Bᵀ G   [r, t]
      for (Index t = 0; t < count; ++t) a->gradient().col(ids[static_cast<std::size_t>(t)]) += dh.col(t);
    }
    flow.add(0, flow.take());
  };
  return y.tape() ? y.tape()->record(std::move(z), {y}, std::move(backward), update.needs_grad()) : Var<S>(std::move(z));
}

/// DoRA of a token table E [vocabulary, dim]: its parts are the table's columns, so m and n = ‖(E + s (B A)ᵀ)_d‖ are [dim].
///
/// Cost: one pass over the table with r columns; ‖E_d‖² is taken once. Throws ShapeError.
template <class S>
Column<S> dora_table_norms(const WeightView& table, DoraWeights<S>& update) {
  if (update.weight_squares.size() == 0) {
    constexpr Index strip = 64;
    Column<double> squares = Column<double>::Zero(table.cols());
    for (Index begin = 0; begin < table.rows(); begin += strip) {
      Weight<S> rows(std::min(strip, table.rows() - begin), table.cols());
      table.decode(begin, rows.rows(), 0, table.cols(), rows.data(), table.cols());
      squares += rows.template cast<double>().colwise().squaredNorm().transpose();
    }
    update.weight_squares = squares.template cast<S>();
  }
  const Activation<S> p = multiply_transposed(table, Activation<S>(update.a.value.transpose()));  // Eᵀ Aᵀ   [dim, r]
  return dora_norms<S>(update.weight_squares, factor(update.a), factor(update.b), update.scale, p);
}

/// (m / n) ∘ Y at the columns [begin, begin + count), recorded: what add_embedding_update gave becomes DoRA's. Keeps Y. Without a tape the
/// update's own `gain` serves, where there is one. Throws ShapeError.
template <class S>
Var<S> scale_embedding(Var<S> y, Index begin, Index count, const WeightView& table, DoraWeights<S>& update) {
  const bool is_prepared = y.tape() == nullptr && update.gain.size() > 0;
  const Column<S> norms = is_prepared ? Column<S>() : dora_table_norms(table, update);
  const Column<S> gain = is_prepared ? update.gain : dora_gain(update.magnitude.value, norms);
  check<ShapeError>(gain.size() == y.rows() && begin >= 0 && begin + count <= y.cols(), "embedding_dora", "y is [", y.rows(), ", ",
                    y.cols(), "], m is [", gain.size(), "], tokens are [", begin, ", ", begin + count, ')');
  Activation<S> z = y.value(), before = z.middleCols(begin, count);
  z.middleCols(begin, count) = gain.asDiagonal() * before;
  auto backward = [m = Handle(update.magnitude), gain, norms, begin, count, before = std::move(before)](auto& flow) {
    Activation<S> g = flow.take();
    auto part = g.middleCols(begin, count);
    if (m->needs_grad())
      m->gradient().col(0).array() +=
          norms.array().binaryExpr(part.cwiseProduct(before).rowwise().sum().array(), [](S n, S sum) { return n > 0 ? sum / n : S(0); });
    part = (gain.asDiagonal() * part).eval();
    flow.add(0, std::move(g));
  };
  return y.tape() ? y.tape()->record(std::move(z), {y}, std::move(backward), update.magnitude.needs_grad()) : Var<S>(std::move(z));
}

}  // namespace lowrank::inline LOWRANK_ABI
