#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/core/shape.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Heads of an attention: each group of heads / kv_heads consecutive query heads shares one key and value head. batch sequences of equal
/// length lie one after the other along the tokens.
struct AttentionShape {
  Index heads = 1, kv_heads = 1, head_size = 0, batch = 1;

  Index group() const { return heads / kv_heads; }
};

/// The output [heads · head_size, batch · Tq], and log Σ exp of each row of scores, [heads, batch · Tq], which the backward pass needs.
template <class S>
struct AttentionForward {
  Activation<S> y, log_sum_exp;
};

/// Of the shapes of q, k and v.
template <class S>
struct AttentionGradients {
  Activation<S> dq, dk, dv;
};

namespace detail {

/// One attention's geometry: blocks of queries against blocks of keys.
///
/// The heads of a group read the same keys, and in memory they follow each other within a token; so n tokens of a group are one matrix
/// [head_size, group · n], column c being head c % group of token c / group, and each key block is read once for all of them.
template <class S>
struct AttentionGrid {
  static constexpr Index key_block = 96;

  AttentionShape shape;
  Index queries, keys;  // tokens of one sequence: Tq and Tk
  Compute compute;

  Index group() const { return shape.group(); }
  Index query_block() const { return std::max<Index>(1, key_block / group()); }
  Index offset() const { return keys - queries; }
  S scale() const { return S(1) / std::sqrt(static_cast<S>(shape.head_size)); }

  /// Keys that column c of a block of queries starting at `query` sees from `key` on; at most one block.
  Index visible(Index query, Index c, Index key, Index count) const {
    return std::clamp<Index>(query + c / group() + offset() - key + 1, 0, count);
  }
  /// A group's heads of n tokens, gathered, times a factor.
  Activation<S> gather(const ActivationView<S>& x, Index sequence, Index kv_head, Index query, Index n, S factor = S(1)) const {
    Activation<S> columns(shape.head_size, group() * n);
    ActivationMap<S>(columns.data(), shape.head_size * group(), n) =
        factor * x.block(kv_head * group() * shape.head_size, sequence * queries + query, group() * shape.head_size, n);
    return columns;
  }
  void scatter(const Activation<S>& columns, Activation<S>& x, Index sequence, Index kv_head, Index query, Index n) const {
    x.block(kv_head * group() * shape.head_size, sequence * queries + query, group() * shape.head_size, n) =
        ConstActivationMap<S>(columns.data(), shape.head_size * group(), n);
  }
  /// `count` keys or values of one head, [head_size, count].
  ConstStrided<S> block(const ActivationView<S>& x, Index sequence, Index kv_head, Index key, Index count) const {
    return {x.col(sequence * keys + key).data() + kv_head * shape.head_size, shape.head_size, count, Eigen::OuterStride<>(x.outerStride())};
  }
  Strided<S> block_of(Activation<S>& x, Index sequence, Index kv_head, Index key, Index count) const {
    return {x.col(sequence * keys + key).data() + kv_head * shape.head_size, shape.head_size, count, Eigen::OuterStride<>(x.outerStride())};
  }
};

/// A whole matrix, or its first rows, as a product takes it.
template <class S>
ConstStrided<S> view_of(const Activation<S>& x, Index rows) {
  return {x.data(), rows, x.cols(), Eigen::OuterStride<>(x.rows())};
}
template <class S>
Strided<S> view_of(Activation<S>& x, Index rows) {
  return {x.data(), rows, x.cols(), Eigen::OuterStride<>(x.rows())};
}

template <class S>
AttentionGrid<S> attention_grid(const char* operation, const ActivationView<S>& q, const ActivationView<S>& k, const ActivationView<S>& v,
                                const AttentionShape& shape, Compute compute) {
  const auto [heads, kv_heads, size, batch] = shape;
  check<ShapeError>(heads > 0 && kv_heads > 0 && size > 0 && batch > 0 && heads % kv_heads == 0, operation, "heads = ", heads,
                    ", kv_heads = ", kv_heads, ", head_size = ", size, ", batch = ", batch,
                    "; all must be positive and kv_heads must divide heads");
  element_count(operation, "the shape [batch, heads, head_size]", {batch, heads, size});
  const bool fits = q.rows() == heads * size && k.rows() == kv_heads * size && v.rows() == k.rows() && v.cols() == k.cols() &&
                    q.cols() % batch == 0 && k.cols() % batch == 0 && q.cols() <= k.cols();
  check<ShapeError>(fits, operation, "q is [", q.rows(), ", ", q.cols(), "], k is [", k.rows(), ", ", k.cols(), "], v is [", v.rows(), ", ",
                    v.cols(), "] with heads = ", heads, ", kv_heads = ", kv_heads, ", head_size = ", size, ", batch = ", batch,
                    "; q must be [heads * head_size, batch * Tq], k and v [kv_heads * head_size, batch * Tk], Tq at most Tk");
  return {shape, q.cols() / batch, k.cols() / batch, compute};
}

/// Adds a block of keys to a running softmax, or begins it: turns scores into e^(score − max) and returns the factor for what was summed
/// before.
template <class S>
S online_softmax(S* scores, Index visible, bool is_first, S& max, S& sum) {
  const S most = max_of(scores, visible), new_max = is_first ? most : std::max(max, most);
  const S correction = is_first ? S(0) : std::exp(max - new_max);
  sum = sum * correction + exponential(scores, new_max, visible, scores);
  max = new_max;
  return correction;
}

/// Output and log-sum-exp of n queries of one group.
template <class S>
void attend_block(const AttentionGrid<S>& grid, const ActivationView<S>& q, const ActivationView<S>& k, const ActivationView<S>& v,
                  Index sequence, Index kv_head, Index query, AttentionForward<S>& out) {
  const Index n = std::min(grid.query_block(), grid.queries - query), columns = n * grid.group(), size = grid.shape.head_size;
  const Activation<S> qs = grid.gather(q, sequence, kv_head, query, n, grid.scale());
  Activation<S> y = Activation<S>::Zero(size, columns), scores(grid.key_block, columns);
  Column<S> max = Column<S>::Zero(columns), sum = Column<S>::Zero(columns);
  const Index end = query + n + grid.offset();  // keys past the last query's own are masked for the whole block
  for (Index key = 0; key < end; key += grid.key_block) {
    const Index count = std::min(grid.key_block, end - key);
    multiply_tn<S>(view_of(scores, count), grid.block(k, sequence, kv_head, key, count), view_of(qs, size), false,
                   grid.compute);  // Kᵀ Q   [count, size] · [size, columns]
    for (Index c = 0; c < columns; ++c) {
      const Index visible = grid.visible(query, c, key, count);
      const S correction = visible > 0 ? online_softmax(&scores(0, c), visible, key == 0, max[c], sum[c]) : S(1);
      if (key > 0) scale(correction, size, &y(0, c));
      std::fill_n(&scores(0, c) + visible, count - visible, S(0));
    }
    multiply_nn<S>(view_of(y, size), grid.block(v, sequence, kv_head, key, count), view_of(std::as_const(scores), count), true,
                   grid.compute);  // V P   [size, count] · [count, columns]
  }
  for (Index c = 0; c < columns; ++c) {
    scale(S(1) / sum[c], size, &y(0, c));
    out.log_sum_exp(kv_head * grid.group() + c % grid.group(), sequence * grid.queries + query + c / grid.group()) =
        max[c] + std::log(sum[c]);
  }
  grid.scatter(y, out.y, sequence, kv_head, query, n);
}

/// The same for one query of one head without products: what generation does for every token.
void attend_query(const AttentionGrid<float>& grid, const ActivationView<float>& q, const ActivationView<float>& k,
                  const ActivationView<float>& v, Index sequence, Index head, Index query, AttentionForward<float>& out);

}  // namespace detail

/// Causal attention: Y = V softmax(Kᵀ Q / √head_size) in each head, where query i of a sequence sees the keys j ≤ i + Tk − Tq.
///
/// Q [heads · head_size, batch · Tq], K and V [kv_heads · head_size, batch · Tk], Tq ≤ Tk; with a cache Tq is the new tokens' number. Keys
/// are taken 64 at a time with a running maximum and sum; no [Tq, Tk] array exists and masked blocks are skipped. Throws ShapeError. Cost:
/// about 4 heads head_size FLOPs a visible pair; compute is that of the products, softmax is fp32. Milakov and Gimelshein 2018; Dao et al.
/// 2022, algorithm 1.
template <MatrixLike Q, class S = ScalarOf<Q>>
AttentionForward<S> attention_forward(const Q& query, const ActivationView<S>& k, const ActivationView<S>& v, const AttentionShape& shape,
                                      Compute compute = Compute::fp32) {
  const ActivationView<S> q(query);
  const auto grid = detail::attention_grid<S>("attention_forward", q, k, v, shape, compute);
  const PhaseScope scope(Phase::attention);
  AttentionForward<S> out{Activation<S>(q.rows(), q.cols()), Activation<S>(shape.heads, q.cols())};
  if constexpr (std::is_same_v<S, float>) {
    if (grid.queries <= 2 && !BatchInvariant::is_on()) {  // too few columns for a product
      parallel_for(q.cols() * shape.heads, [&](Index piece) {
        const Index column = piece / shape.heads;
        detail::attend_query(grid, q, k, v, column / grid.queries, piece % shape.heads, column % grid.queries, out);
      });
      return out;
    }
  }
  const Index blocks = ceil_div(grid.queries, grid.query_block());
  parallel_for(shape.batch * shape.kv_heads * blocks, [&](Index piece) {
    const Index block = blocks - 1 - piece % blocks;  // the longest first
    const Index head = piece / blocks % shape.kv_heads, sequence = piece / blocks / shape.kv_heads;
    detail::attend_block(grid, q, k, v, sequence, head, block * grid.query_block(), out);
  });
  return out;
}

namespace detail {

/// What the backward pass reads, gathered for n queries of one group.
template <class S>
struct AttentionColumns {
  Activation<S> q, g, dq;             // q times the scale; [size, columns]
  Column<S> log_sum_exp, projection;  // projection is Σ g∘y, the derivative of a softmax along itself

  AttentionColumns(const AttentionGrid<S>& grid, const ActivationView<S>& all_q, const ActivationView<S>& y, const ActivationView<S>& lse,
                   const ActivationView<S>& all_g, Index sequence, Index kv_head, Index query, Index n)
      : q(grid.gather(all_q, sequence, kv_head, query, n, grid.scale())),
        g(grid.gather(all_g, sequence, kv_head, query, n)),
        dq(Activation<S>::Zero(q.rows(), q.cols())),
        log_sum_exp(q.cols()),
        projection(q.cols()) {
    const Activation<S> out = grid.gather(y, sequence, kv_head, query, n);
    for (Index c = 0; c < q.cols(); ++c) {
      log_sum_exp[c] = lse(kv_head * grid.group() + c % grid.group(), sequence * grid.queries + query + c / grid.group());
      projection[c] = sum_of<S>(out.rows(), [&](Index i) { return out(i, c) * g(i, c); });
    }
  }
};

/// Scores to probabilities p = e^(p − shift), and their gradient d = p ∘ (d − along).
template <class S>
void softmax_backward(S* p, S shift, S along, Index n, S* d) {
  if constexpr (std::is_same_v<S, float>) {
    elementwise().softmax_backward(p, shift, along, n, p, d);
  } else {
    array(p, n) = (array(p, n) - shift).exp();
    array(d, n) = array(p, n) * (array(d, n) - along);
  }
}

/// Gradients of one block of queries against one block of keys: with P = e^(Kᵀ Q − lse) and dS = P ∘ (Vᵀ G − Σ g∘y),
/// dV += G Pᵀ, dQ += K dS, dK += Q dSᵀ.
template <class S>
void attend_block_backward(const AttentionGrid<S>& grid, Index query, Index key, ConstStrided<S> k, ConstStrided<S> v,
                           AttentionColumns<S>& at, Strided<S> dk, Strided<S> dv) {
  const Index size = at.q.rows(), columns = at.q.cols(), count = k.cols();
  Activation<S> p(count, columns), ds(count, columns);
  multiply_tn<S>(view_of(p, count), k, view_of(std::as_const(at.q), size), false, grid.compute);  // Kᵀ Q   [count, size] · [size, columns]
  multiply_tn<S>(view_of(ds, count), v, view_of(std::as_const(at.g), size), false, grid.compute);  // Vᵀ G   [count, size] · [size, columns]
  for (Index c = 0; c < columns; ++c) {
    const Index visible = grid.visible(query, c, key, count);
    softmax_backward(&p(0, c), at.log_sum_exp[c], at.projection[c], visible, &ds(0, c));
    std::fill_n(&p(0, c) + visible, count - visible, S(0));
    std::fill_n(&ds(0, c) + visible, count - visible, S(0));
  }
  const ConstStrided<S> p_all = view_of(std::as_const(p), count), ds_all = view_of(std::as_const(ds), count);
  multiply_nt<S>(dv, view_of(std::as_const(at.g), size), p_all, true, grid.compute);   // G Pᵀ    [size, columns] · [columns, count]
  multiply_nt<S>(dk, view_of(std::as_const(at.q), size), ds_all, true, grid.compute);  // Q dSᵀ   [size, columns] · [columns, count]
  multiply_nn<S>(view_of(at.dq, size), k, ds_all, true, grid.compute);                 // K dS    [size, count] · [count, columns]
}

}  // namespace detail

/// Gradients of attention_forward for G = dL/dY, from its Y and log-sum-exp; the probabilities are recomputed block by block.
///
/// A key and value head belongs to one piece of work, which sums its gradient in a fixed order. Throws ShapeError.
/// Dao et al. 2022, algorithm 4.
template <MatrixLike Q, class S = ScalarOf<Q>>
AttentionGradients<S> attention_backward(const Q& all_q, const ActivationView<S>& k, const ActivationView<S>& v, const ActivationView<S>& y,
                                         const ActivationView<S>& log_sum_exp, const ActivationView<S>& g, const AttentionShape& shape,
                                         Compute compute = Compute::fp32) {
  const ActivationView<S> q(all_q);
  const auto grid = detail::attention_grid<S>("attention_backward", q, k, v, shape, compute);
  detail::check_same_shape("attention_backward", "q", q, "y", y);
  detail::check_same_shape("attention_backward", "q", q, "g", g);
  check<ShapeError>(log_sum_exp.rows() == shape.heads && log_sum_exp.cols() == q.cols(), "attention_backward", "log_sum_exp is [",
                    log_sum_exp.rows(), ", ", log_sum_exp.cols(), "] but there are ", shape.heads, " heads and ", q.cols(),
                    " tokens; pass the array that attention_forward gave");
  const PhaseScope scope(Phase::attention);
  AttentionGradients<S> gradients{Activation<S>(q.rows(), q.cols()), Activation<S>::Zero(k.rows(), k.cols()),
                                  Activation<S>::Zero(v.rows(), v.cols())};
  parallel_for(shape.batch * shape.kv_heads, [&](Index piece) {
    const Index head = piece % shape.kv_heads, sequence = piece / shape.kv_heads;
    for (Index query = 0; query < grid.queries; query += grid.query_block()) {
      const Index n = std::min(grid.query_block(), grid.queries - query), end = query + n + grid.offset();
      detail::AttentionColumns<S> at(grid, q, y, log_sum_exp, g, sequence, head, query, n);
      for (Index key = 0; key < end; key += grid.key_block) {
        const Index count = std::min(grid.key_block, end - key);
        detail::attend_block_backward(
            grid, query, key, grid.block(k, sequence, head, key, count), grid.block(v, sequence, head, key, count), at,
            grid.block_of(gradients.dk, sequence, head, key, count), grid.block_of(gradients.dv, sequence, head, key, count));
      }
      at.dq *= grid.scale();
      grid.scatter(at.dq, gradients.dq, sequence, head, query, n);
    }
  });
  return gradients;
}

#if defined(LOWRANK_COMPILED)
extern template AttentionForward<float> attention_forward(const Activation<float>&, const ActivationView<float>&,
                                                          const ActivationView<float>&, const AttentionShape&, Compute);
extern template AttentionGradients<float> attention_backward(const Activation<float>&, const ActivationView<float>&,
                                                             const ActivationView<float>&, const ActivationView<float>&,
                                                             const ActivationView<float>&, const ActivationView<float>&,
                                                             const AttentionShape&, Compute);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/attention.inl>
#endif
