#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/ops/attention_backward.hpp>
#include <lowrank/ops/attention_blocks.hpp>
#include <lowrank/ops/attention_stream.hpp>
#include <lowrank/ops/kv_cache.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Whether keys and values go by in a stream: for few queries, and where no query's numbers may depend on its neighbours.
template <class S>
bool streams(const AttentionGrid<S>& grid) {
  if (!std::is_same_v<S, float>) return false;
  return BatchInvariant::is_on() || grid.queries <= 2 || (grid.queries <= few_queries && grid.keys > kv_chunk);
}

/// Attention of each grid by the way that its queries' number asks for; blocks of all that go by blocks are one parallel loop.
template <class S, class Element>
AttentionForward<S> attend(const std::vector<AttentionGrid<S>>& grids, const ActivationView<S>& q, const KvView<Element>& k,
                           const KvView<Element>& v) {
  const PhaseScope scope(Phase::attention);
  AttentionForward<S> out{Activation<S>(q.rows(), q.cols()), Activation<S>(grids.front().shape.heads, q.cols())};
  std::vector<Index> ends;  // of each grid's blocks among all
  for (const AttentionGrid<S>& grid : grids) {
    const Index heads = grid.shape.batch.count() * grid.shape.kv_heads, before = ends.empty() ? 0 : ends.back();
    ends.push_back(before + (streams(grid) ? 0 : heads * ceil_div(grid.queries, query_block(grid))));
    if constexpr (std::is_same_v<S, float>)
      if (streams(grid)) stream_attention(grid, q, k, v, out);
  }
  parallel_for(ends.back(), [&](Index i) {
    const auto at = std::upper_bound(ends.begin(), ends.end(), i) - ends.begin();
    const AttentionGrid<S>& grid = grids[static_cast<std::size_t>(at)];
    const Index piece = at == 0 ? i : i - ends[static_cast<std::size_t>(at) - 1], blocks = ceil_div(grid.queries, query_block(grid));
    const Index head = piece / blocks % grid.shape.kv_heads, sequence = piece / blocks / grid.shape.kv_heads;
    attend_block(grid, q, k, v, query_block_at(grid, sequence, head, blocks - 1 - piece % blocks), out);  // the longest first
  });
  return out;
}

}  // namespace detail

/// Causal attention: Y = V softmax(scale · Kᵀ Q) in each head, where query i of a sequence sees the keys j ≤ i + Tk − Tq, of a window the
/// last ones only; a cap bends the scores before the softmax.
///
/// Q [heads · head_size, batch · Tq], K and V [kv_heads · head_size, batch · Tk], Tq ≤ Tk; with a cache Tq is the new tokens' number.
/// Sequences of unequal length have Tq = Tk, and give the bits that each gives alone. Keys are taken a block at a time with a running
/// maximum and sum; no [Tq, Tk] array exists and masked blocks are skipped. Many queries go through products in `compute`, few see keys and
/// values go by in fp32, and with BatchInvariant all do, keys and values rounded as `compute` rounds them. Throws ShapeError. Cost: about
/// 4 heads head_size FLOPs a visible pair; softmax is fp32. Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1.
template <MatrixLike Q, class S = ScalarOf<Q>>
AttentionForward<S> attention_forward(const Q& query, const ActivationView<S>& k, const ActivationView<S>& v, const AttentionShape& shape,
                                      Compute compute = Compute::fp32) {
  const ActivationView<S> q(query);
  const auto grids = detail::attention_grids<S>("attention_forward", q, k, v, shape, compute);
  if constexpr (std::is_same_v<S, float>) {
    if (BatchInvariant::is_on() && compute != Compute::fp32) {  // what a cache of that arithmetic would hold
      KvCache rounded(shape.kv_heads, shape.head_size, CachePrecision::bf16);
      rounded.append(k, v);
      return rounded.visit([&](const auto& keys, const auto& values) { return detail::attend<float>(grids, q, keys, values); });
    }
  }
  return detail::attend<S>(grids, q, kv_view<S>(k, shape.kv_heads), kv_view<S>(v, shape.kv_heads));
}

/// The same for keys and values where they lie, in the queries' scalar or in bfloat16.
template <MatrixLike Q, class Element, class S = ScalarOf<Q>>
AttentionForward<S> attention_forward(const Q& query, const KvView<Element>& k, const KvView<Element>& v, const AttentionShape& shape,
                                      Compute compute = Compute::fp32) {
  static_assert(std::is_same_v<Element, S> || (std::is_same_v<S, float> && std::is_same_v<Element, BFloat16>),
                "keys and values are numbers of the queries' type, or BFloat16 where that is float");
  const ActivationView<S> q(query);
  detail::check_attention("attention_forward", shape, {q.rows(), q.cols()}, {k.heads * k.head_size, k.tokens},
                          {v.heads * v.head_size, v.tokens});
  check<ShapeError>(k.heads == shape.kv_heads && v.heads == shape.kv_heads, "attention_forward", "k has ", k.heads, " heads, v ", v.heads,
                    " with kv_heads = ", shape.kv_heads, "; all must be the same");
  return detail::attend<S>(detail::attention_grids<S>("attention_forward", shape, q.cols(), k.tokens, compute), q, k, v);
}

/// The same for the last tokens of one sequence and all that a cache holds, themselves included. Q [heads · head_size, Tq].
template <MatrixLike Q>
AttentionForward<float> attention_forward(const Q& query, const KvCache& cache, const AttentionShape& shape,
                                          Compute compute = Compute::fp32) {
  return cache.visit([&](const auto& k, const auto& v) { return attention_forward(query, k, v, shape, compute); });
}

/// Gradients of attention_forward for G = dL/dY, from its Y and log-sum-exp; the probabilities are recomputed block by block.
///
/// A piece of work is a key and value head with some of a long sequence's queries; what it adds to the head's keys and values is summed in
/// a fixed order, so bits do not depend on the number of threads, and those of sequences of unequal length are those of each alone. Throws
/// ShapeError. Memory beside the gradients: (n − 1) / 2 times dK and dV for n parts of a head's queries, n = min(⌈32 / (batch kv_heads)⌉,
/// Tq / 512), batch = 1 where lengths are unequal. Dao et al. 2022, algorithm 4.
template <MatrixLike Q, class S = ScalarOf<Q>>
AttentionGradients<S> attention_backward(const Q& all_q, const ActivationView<S>& k, const ActivationView<S>& v, const ActivationView<S>& y,
                                         const ActivationView<S>& log_sum_exp, const ActivationView<S>& g, const AttentionShape& shape,
                                         Compute compute = Compute::fp32) {
  const ActivationView<S> q(all_q);
  const auto grids = detail::attention_grids<S>("attention_backward", q, k, v, shape, compute);
  detail::check_same_shape("attention_backward", "q", q, "y", y);
  detail::check_same_shape("attention_backward", "q", q, "g", g);
  check<ShapeError>(log_sum_exp.rows() == shape.heads && log_sum_exp.cols() == q.cols(), "attention_backward", "log_sum_exp is [",
                    log_sum_exp.rows(), ", ", log_sum_exp.cols(), "] but there are ", shape.heads, " heads and ", q.cols(),
                    " tokens; pass the array that attention_forward gave");
  const PhaseScope scope(Phase::attention);
  return detail::attention_gradients<S>(grids, {q, k, v, y, log_sum_exp, g});
}

#if defined(LOWRANK_COMPILED)
extern template AttentionForward<float> attention_forward(const Activation<float>&, const ActivationView<float>&,
                                                          const ActivationView<float>&, const AttentionShape&, Compute);
extern template AttentionForward<float> attention_forward(const Activation<float>&, const KvCache&, const AttentionShape&, Compute);
extern template AttentionGradients<float> attention_backward(const Activation<float>&, const ActivationView<float>&,
                                                             const ActivationView<float>&, const ActivationView<float>&,
                                                             const ActivationView<float>&, const ActivationView<float>&,
                                                             const AttentionShape&, Compute);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/attention.inl>
#endif
