#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/ops/embedding.hpp>
#include <lowrank/update/lora.hpp>

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

}  // namespace lowrank::inline LOWRANK_ABI
