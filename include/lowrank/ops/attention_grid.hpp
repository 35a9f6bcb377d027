#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/shape.hpp>
#include <lowrank/ops/sequences.hpp>
#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Heads of an attention: each group of heads / kv_heads consecutive query heads shares one key and value head. The sequences of a batch
/// lie one after the other along the tokens, and none sees another.
struct AttentionShape {
  Index heads = 1, kv_heads = 1, head_size = 0;
  Sequences batch = 1;
  Index window = 0;  ///< keys that a query sees at most, the last ones up to itself (a sliding window); 0: all
  double scale = 0;  ///< of the scores Kᵀ Q; 0: 1 / √head_size
  double cap = 0;    ///< scores s become cap · tanh(s / cap) (Gemma 2's soft cap); 0: they stay

  Index group() const { return heads / kv_heads; }
};

/// The output, of the shape of Q, and log Σ exp of each row of scores, [heads, tokens], which the backward pass needs.
template <class S>
struct AttentionForward {
  Activation<S> y, log_sum_exp;
};

namespace detail {

/// Queries that follow each other, against the keys of one head.
struct QueryBlock {
  Index sequence, kv_head, query, count;
};

/// Keys [first, end) of a block of keys.
struct KeyRange {
  Index first, end;

  Index count() const { return end - first; }
  /// Sets what is outside of it to 0.
  template <class S>
  void mask(S* column, Index keys) const {
    std::fill_n(column, first, S(0));
    std::fill_n(column + end, keys - end, S(0));
  }
};

/// s → cap · tanh(s / cap).
template <class S>
void cap_scores(S* scores, S cap, Index n) {
  array(scores, n) = cap * (array(scores, n) / cap).tanh();
}

/// One attention's geometry: of sequences of equal length that follow each other.
///
/// The heads of a group read the same keys, and in memory they follow each other within a token; so n tokens of a group are one matrix
/// [head_size, group · n], column c being head c % group of token c / group, and each key block is read once for all of them.
template <class S>
struct AttentionGrid {
  AttentionShape shape;
  Index queries, keys;  // tokens of one sequence: Tq and Tk
  Compute compute;
  Index origin = 0;  // token where they begin, of queries and of keys

  Index group() const { return shape.group(); }
  Index offset() const { return keys - queries; }
  S scale() const { return shape.scale > 0 ? static_cast<S>(shape.scale) : S(1) / std::sqrt(static_cast<S>(shape.head_size)); }
  Index columns(const QueryBlock& block) const { return group() * block.count; }

  /// Of `count` keys from `key` on, those that column c of a block sees.
  KeyRange visible(const QueryBlock& block, Index c, Index key, Index count) const {
    const Index own = block.query + c / group() + offset();
    const Index end = std::clamp<Index>(own - key + 1, 0, count);
    return {std::clamp<Index>(first(own) - key, 0, end), end};
  }
  /// Keys before it and past end() are masked for the whole block.
  Index begin(const QueryBlock& block) const { return first(block.query + offset()); }
  Index end(const QueryBlock& block) const { return block.query + block.count + offset(); }
  /// The first key that the query beside key `own` sees.
  Index first(Index own) const { return shape.window > 0 ? std::max<Index>(0, own - shape.window + 1) : 0; }
  /// Head and token that column c of a block is.
  Index head(const QueryBlock& block, Index c) const { return block.kv_head * group() + c % group(); }
  Index token(const QueryBlock& block, Index c) const { return origin + block.sequence * queries + block.query + c / group(); }
  /// Token where a sequence's keys begin.
  Index first_key(Index sequence) const { return origin + sequence * keys; }

  /// A block's columns of x [heads · head_size, batch · Tq], times a factor, as columns [head_size, group · count].
  void gather(const ActivationView<S>& x, const QueryBlock& block, S* columns, S factor = S(1)) const {
    ActivationMap<S>(columns, shape.head_size * group(), block.count) =
        factor * x.block(head(block, 0) * shape.head_size, token(block, 0), group() * shape.head_size, block.count);
  }
  void scatter(const S* columns, const QueryBlock& block, Activation<S>& x) const {
    x.block(head(block, 0) * shape.head_size, token(block, 0), group() * shape.head_size, block.count) =
        ConstActivationMap<S>(columns, shape.head_size * group(), block.count);
  }
};

/// Throws ShapeError unless q, k and v have the shapes that AttentionShape says, [rows, tokens] each.
inline void check_attention(const char* operation, const AttentionShape& shape, const Index (&q)[2], const Index (&k)[2],
                            const Index (&v)[2]) {
  const Index heads = shape.heads, kv_heads = shape.kv_heads, size = shape.head_size, batch = shape.batch.count();
  check<ShapeError>(heads > 0 && kv_heads > 0 && size > 0 && batch > 0 && heads % kv_heads == 0, operation, "heads = ", heads,
                    ", kv_heads = ", kv_heads, ", head_size = ", size, ", batch = ", batch,
                    "; all must be positive and kv_heads must divide heads");
  check<ValueError>(shape.window >= 0 && shape.scale >= 0 && shape.cap >= 0 && is_finite(shape.scale) && is_finite(shape.cap), operation,
                    "window = ", shape.window, ", scale = ", shape.scale, ", cap = ", shape.cap, "; each must be positive, or 0 for none");
  element_count(operation, "the shape [batch, heads, head_size]", {batch, heads, size});
  const bool is_even = !shape.batch.are_equal() || (q[1] % batch == 0 && k[1] % batch == 0);
  const bool fits = q[0] == heads * size && k[0] == kv_heads * size && v[0] == k[0] && v[1] == k[1] && is_even && q[1] <= k[1];
  check<ShapeError>(fits, operation, "q is [", q[0], ", ", q[1], "], k is [", k[0], ", ", k[1], "], v is [", v[0], ", ", v[1],
                    "] with heads = ", heads, ", kv_heads = ", kv_heads, ", head_size = ", size, ", batch = ", batch,
                    "; q must be [heads * head_size, batch * Tq], k and v [kv_heads * head_size, batch * Tk], Tq at most Tk");
  check<ShapeError>(shape.batch.are_equal() || q[1] == k[1], operation, "q has ", q[1], " tokens and k ", k[1], " in sequences of unequal ",
                    "length; a sequence that goes on from a cache is alone, or one of equal ones");
}

/// The batch as one grid where its sequences are equally long, else a grid for each, as if it were alone. The shape is checked already.
template <class S>
std::vector<AttentionGrid<S>> attention_grids(const char* operation, const AttentionShape& shape, Index queries, Index keys,
                                              Compute compute) {
  const Index count = shape.batch.count();
  if (shape.batch.are_equal()) return {AttentionGrid<S>{shape, queries / count, keys / count, compute}};
  AttentionShape alone = shape;
  alone.batch = 1;
  std::vector<AttentionGrid<S>> grids;
  Index first = 0;
  for (const Index length : shape.batch.lengths(operation, queries)) {
    grids.push_back({alone, length, length, compute, first});
    first += length;
  }
  return grids;
}

template <class S>
std::vector<AttentionGrid<S>> attention_grids(const char* operation, const ActivationView<S>& q, const ActivationView<S>& k,
                                              const ActivationView<S>& v, const AttentionShape& shape, Compute compute) {
  check_attention(operation, shape, {q.rows(), q.cols()}, {k.rows(), k.cols()}, {v.rows(), v.cols()});
  return attention_grids<S>(operation, shape, q.cols(), k.cols(), compute);
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
