#pragma once

/// Attention of many queries: blocks of them against blocks of keys, by packed products.

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include <lowrank/kernels/driver/scratch.hpp>
#include <lowrank/ops/attention_grid.hpp>
#include <lowrank/ops/kv_view.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

inline constexpr Index attention_block = 96;  // keys, and columns

/// Queries of a block.
template <class S>
Index query_block(const AttentionGrid<S>& grid) {
  return std::max<Index>(1, attention_block / grid.group());
}

/// Block number i of a sequence's queries.
template <class S>
QueryBlock query_block_at(const AttentionGrid<S>& grid, Index sequence, Index kv_head, Index i) {
  const Index query = i * query_block(grid);
  return {sequence, kv_head, query, std::min(query_block(grid), grid.queries - query)};
}

/// Memory of one thread, from block to block: numbers in consecutive pieces.
template <class S>
class AttentionScratch {
 public:
  explicit AttentionScratch(Index count) : next_(kernels::Scratch<AttentionScratch>::template get<S>(count)) {}
  S* take(Index count) { return std::exchange(next_, next_ + count); }

 private:
  S* next_;
};

/// A [rows, cols] in memory whose columns are `stride` apart, as a product takes it.
template <class S>
Strided<S> strided(S* data, Index rows, Index cols, Index stride) {
  return {data, rows, cols, Eigen::OuterStride<>(stride)};
}
template <class S>
ConstStrided<S> const_strided(const S* data, Index rows, Index cols, Index stride) {
  return {data, rows, cols, Eigen::OuterStride<>(stride)};
}

/// `count` keys or values of a head from `token` on, where they lie.
template <class Element>
struct KvBlock {
  const Element* data;
  Index size, count, stride;

  KvBlock(const KvView<Element>& all, Index head, Index token, Index count_)
      : data(all.at(head, token)), size(all.head_size), count(count_), stride(all.token_stride) {}
};

/// C = Kᵀ Q   [count, size] · [size, columns].
template <class S, class Element>
void multiply_keys(Strided<S> c, const KvBlock<Element>& k, ConstStrided<S> q, Compute compute) {
  if constexpr (std::is_same_v<S, Element>) {
    multiply_tn<S>(c, const_strided<S>(k.data, k.size, k.count, k.stride), q, false, compute);
  } else {
    const DenseSource<Element> rows(k.data, k.count, k.size, k.stride);
    kernels::multiply(rows, q.data(), q.outerStride(), q.cols(), c.data(), c.outerStride(), {.compute = compute});
  }
}
/// C += V P   [size, count] · [count, columns].
template <class S, class Element>
void add_values(Strided<S> c, const KvBlock<Element>& v, ConstStrided<S> p, Compute compute) {
  if constexpr (std::is_same_v<S, Element>) {
    multiply_nn<S>(c, const_strided<S>(v.data, v.size, v.count, v.stride), p, true, compute);
  } else {
    const DenseSource<Element> rows(v.data, v.count, v.size, v.stride);
    kernels::multiply(transposed(rows), p.data(), p.outerStride(), p.cols(), c.data(), c.outerStride(),
                      {.compute = compute, .accumulate = true});
  }
}

/// Adds a block of keys to a running softmax, or begins it where nothing was summed: turns scores into e^(score − max) and returns the
/// factor for what was summed before.
template <class S>
S online_softmax(S* scores, Index visible, S& max, S& sum) {
  const bool is_first = sum == 0;
  const S most = max_of(scores, visible), new_max = is_first ? most : std::max(max, most);
  const S correction = is_first ? S(0) : std::exp(max - new_max);
  sum = sum * correction + exponential(scores, new_max, visible, scores);
  max = new_max;
  return correction;
}

/// Output and log-sum-exp of one block of queries.
template <class S, class Element>
void attend_block(const AttentionGrid<S>& grid, const ActivationView<S>& q, const KvView<Element>& k, const KvView<Element>& v,
                  const QueryBlock& block, AttentionForward<S>& out) {
  const Index size = grid.shape.head_size, columns = grid.columns(block), end = grid.end(block), first = grid.first_key(block.sequence);
  const Index begin = grid.begin(block) / attention_block * attention_block;
  AttentionScratch<S> scratch((2 * size + attention_block + 2) * columns);
  S *const qs = scratch.take(size * columns), *const y = scratch.take(size * columns), *const max = scratch.take(columns);
  S *const sum = scratch.take(columns), *const scores = scratch.take(attention_block * columns);
  grid.gather(q, block, qs, grid.scale());
  std::fill_n(y, size * columns, S(0));
  std::fill_n(max, 2 * columns, S(0));  // and sum
  for (Index key = begin; key < end; key += attention_block) {
    const Index count = std::min(attention_block, end - key);
    multiply_keys<S>(strided(scores, count, columns, attention_block), KvBlock(k, block.kv_head, first + key, count),
                     const_strided<S>(qs, size, columns, size), grid.compute);
    for (Index c = 0; c < columns; ++c) {
      S* const column = scores + c * attention_block;
      const KeyRange visible = grid.visible(block, c, key, count);
      if (grid.shape.cap > 0) cap_scores(column + visible.first, static_cast<S>(grid.shape.cap), visible.count());
      const S correction = visible.count() > 0 ? online_softmax(column + visible.first, visible.count(), max[c], sum[c]) : S(1);
      if (key > begin) scale(correction, size, y + c * size);
      visible.mask(column, count);
    }
    add_values<S>(strided(y, size, columns, size), KvBlock(v, block.kv_head, first + key, count),
                  const_strided<S>(scores, count, columns, attention_block), grid.compute);
  }
  for (Index c = 0; c < columns; ++c) {
    scale(S(1) / sum[c], size, y + c * size);
    out.log_sum_exp(grid.head(block, c), grid.token(block, c)) = max[c] + std::log(sum[c]);
  }
  grid.scatter(y, block, out.y);
}

}  // namespace lowrank::inline LOWRANK_ABI::detail
