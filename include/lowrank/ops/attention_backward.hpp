#pragma once

/// Gradients of attention: blocks of queries against blocks of keys, and how they are spread over the threads.

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/ops/attention_blocks.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Of the shapes of q, k and v.
template <class S>
struct AttentionGradients {
  Activation<S> dq, dk, dv;
};

namespace detail {

/// Scores to probabilities p = e^(p − shift), and their gradient d = p ∘ (d − along); with a cap c, p is c · tanh(p / c) before, whose
/// derivative is 1 − (p / c)².
template <class S>
void softmax_backward(S* p, S shift, S along, Index n, S* d, S cap) {
  S slope[attention_block];
  if (cap > 0) {
    cap_scores(p, cap, n);
    array(slope, n) = S(1) - (array(p, n) / cap).square();
  }
  if constexpr (std::is_same_v<S, float>) {
    elementwise().softmax_backward(p, shift, along, n, p, d);
  } else {
    array(p, n) = (array(p, n) - shift).exp();
    array(d, n) = array(p, n) * (array(d, n) - along);
  }
  if (cap > 0) array(d, n) *= array(static_cast<const S*>(slope), n);
}

/// What the backward pass of an attention reads.
template <class S>
struct AttentionSaved {
  const ActivationView<S>&q, &k, &v, &y, &log_sum_exp, &g;
};

template <class S>
struct KeyGradients {
  Activation<S> dk, dv;
};

/// The gradients of one grid's queries, keys and values.
template <class S>
class AttentionBackward {
 public:
  AttentionBackward(const AttentionGrid<S>& grid, const AttentionSaved<S>& saved, AttentionGradients<S>& out)
      : grid_(grid), in_(saved), k_(kv_view<S>(saved.k, grid.shape.kv_heads)), v_(kv_view<S>(saved.v, grid.shape.kv_heads)), out_(out) {}

  Index heads() const { return grid_.shape.batch.count() * grid_.shape.kv_heads; }
  /// Into how many parts the queries of a head are cut.
  Index parts() const { return std::clamp<Index>(ceil_div(wanted_pieces, heads()), 1, std::max<Index>(1, grid_.queries / part_queries)); }

  /// One head's part; pieces are heads() · parts(). The last part sees all keys, so it writes the result; each other has arrays of its own,
  /// of which it uses the keys that it sees.
  void attend(Index piece, std::vector<KeyGradients<S>>& own) const {
    const Index part = parts() - 1 - piece / heads(), head = piece % heads();  // the longest first
    const bool is_last = part == parts() - 1;
    KeyGradients<S>* const into = is_last ? nullptr : &own[static_cast<std::size_t>(part)];
    attend_part(head / grid_.shape.kv_heads, head % grid_.shape.kv_heads, first_block(part), first_block(part + 1),
                into ? into->dk : out_.dk, into ? into->dv : out_.dv);
  }

  /// Adds the parts that have arrays of their own, in a fixed order.
  void add(const std::vector<KeyGradients<S>>& own) const {
    for (Index part = parts() - 2; part >= 0; --part) add(own[static_cast<std::size_t>(part)], seen_by(first_block(part + 1)));
  }

 private:
  static constexpr Index wanted_pieces = 32, part_queries = 512;
  /// One thread's arrays, [head_size or keys, columns] each.
  struct Columns {
    S *q, *g, *dq;                // q times the scale
    S *log_sum_exp, *projection;  // projection is Σ g∘y, the derivative of a softmax along itself
    S *p, *ds;
    Index count;
  };

  Index size() const { return grid_.shape.head_size; }
  Index first_block(Index part) const { return ceil_div(grid_.queries, query_block(grid_)) * part / parts(); }
  /// Keys of a sequence that the queries of its first blocks see.
  Index seen_by(Index blocks) const { return std::min(blocks * query_block(grid_), grid_.queries) + grid_.offset(); }

  /// Blocks [begin, end) of one head's queries.
  void attend_part(Index sequence, Index kv_head, Index begin, Index end, Activation<S>& dk, Activation<S>& dv) const {
    const Index keys = end == ceil_div(grid_.queries, query_block(grid_)) ? grid_.keys : seen_by(end);
    dk.block(kv_head * size(), grid_.first_key(sequence), size(), keys).setZero();
    dv.block(kv_head * size(), grid_.first_key(sequence), size(), keys).setZero();
    const Index most = query_block(grid_) * grid_.group();
    AttentionScratch<S> scratch((4 * size() + 2 * attention_block + 2) * most);
    Columns at{};
    for (S** array : {&at.q, &at.g, &at.dq}) *array = scratch.take(size() * most);
    for (S** array : {&at.log_sum_exp, &at.projection}) *array = scratch.take(most);
    for (S** array : {&at.p, &at.ds}) *array = scratch.take(attention_block * most);
    S* const y = scratch.take(size() * most);
    for (Index i = begin; i < end; ++i) {
      const QueryBlock block = query_block_at(grid_, sequence, kv_head, i);
      gather(block, at, y);
      for (Index key = grid_.begin(block) / attention_block * attention_block; key < grid_.end(block); key += attention_block)
        attend_keys(block, key, std::min(attention_block, grid_.end(block) - key), at, dk, dv);
      array(at.dq, size() * at.count) *= grid_.scale();
      grid_.scatter(at.dq, block, out_.dq);
    }
  }

  void gather(const QueryBlock& block, Columns& at, S* y) const {
    at.count = grid_.columns(block);
    grid_.gather(in_.q, block, at.q, grid_.scale());
    grid_.gather(in_.g, block, at.g);
    grid_.gather(in_.y, block, y);
    std::fill_n(at.dq, size() * at.count, S(0));
    for (Index c = 0; c < at.count; ++c) {
      const S *const out = y + c * size(), *const g = at.g + c * size();
      at.log_sum_exp[c] = in_.log_sum_exp(grid_.head(block, c), grid_.token(block, c));
      at.projection[c] = sum_of<S>(size(), [&](Index i) { return out[i] * g[i]; });
    }
  }

  /// One block of queries against one of keys: with P = e^(Kᵀ Q − lse) and dS = P ∘ (Vᵀ G − Σ g∘y),
  /// dV += G Pᵀ, dQ += K dS, dK += Q dSᵀ.
  void attend_keys(const QueryBlock& block, Index key, Index count, const Columns& at, Activation<S>& dk, Activation<S>& dv) const {
    const Index columns = at.count, token = grid_.first_key(block.sequence) + key, row = block.kv_head * size();
    const KvBlock<S> k(k_, block.kv_head, token, count), v(v_, block.kv_head, token, count);
    const ConstStrided<S> q = const_strided<S>(at.q, size(), columns, size());
    const ConstStrided<S> g = const_strided<S>(at.g, size(), columns, size());
    multiply_keys<S>(strided(at.p, count, columns, attention_block), k, q, grid_.compute);   // Kᵀ Q   [count, size] · [size, columns]
    multiply_keys<S>(strided(at.ds, count, columns, attention_block), v, g, grid_.compute);  // Vᵀ G   [count, size] · [size, columns]
    for (Index c = 0; c < columns; ++c) {
      S *const p = at.p + c * attention_block, *const ds = at.ds + c * attention_block;
      const KeyRange visible = grid_.visible(block, c, key, count);
      softmax_backward(p + visible.first, at.log_sum_exp[c], at.projection[c], visible.count(), ds + visible.first,
                       static_cast<S>(grid_.shape.cap));
      visible.mask(p, count);
      visible.mask(ds, count);
    }
    const ConstStrided<S> p = const_strided<S>(at.p, count, columns, attention_block);
    const ConstStrided<S> ds = const_strided<S>(at.ds, count, columns, attention_block);
    const Strided<S> dk_block = strided(&dk(row, token), size(), count, dk.outerStride());
    const Strided<S> dv_block = strided(&dv(row, token), size(), count, dv.outerStride());
    multiply_nt<S>(dv_block, g, p, true, grid_.compute);                           // G Pᵀ    [size, columns] · [columns, count]
    multiply_nt<S>(dk_block, q, ds, true, grid_.compute);                          // Q dSᵀ   [size, columns] · [columns, count]
    add_values<S>(strided(at.dq, size(), columns, size()), k, ds, grid_.compute);  // K dS    [size, count] · [count, columns]
  }

  /// Adds what a part gave for the first keys of each sequence.
  void add(const KeyGradients<S>& part, Index keys) const {
    for_each_token(out_.dk.rows(), grid_.shape.batch.count() * keys, [&](Index i) {
      const Index token = grid_.first_key(i / keys) + i % keys;
      out_.dk.col(token) += part.dk.col(token);
      out_.dv.col(token) += part.dv.col(token);
    });
  }

  const AttentionGrid<S>& grid_;
  const AttentionSaved<S> in_;
  const KvView<S> k_, v_;
  AttentionGradients<S>& out_;
};

/// The gradients of all grids; their pieces are one parallel loop.
template <class S>
AttentionGradients<S> attention_gradients(const std::vector<AttentionGrid<S>>& grids, const AttentionSaved<S>& saved) {
  const auto like = [](const ActivationView<S>& x) { return Activation<S>(x.rows(), x.cols()); };
  AttentionGradients<S> out{like(saved.q), like(saved.k), like(saved.v)};
  std::vector<AttentionBackward<S>> backward;
  backward.reserve(grids.size());
  Index most_parts = 1;
  std::vector<std::pair<const AttentionBackward<S>*, Index>> pieces;
  for (const AttentionGrid<S>& grid : grids) {
    const AttentionBackward<S>& each = backward.emplace_back(grid, saved, out);
    most_parts = std::max(most_parts, each.parts());
    for (Index piece = 0; piece < each.heads() * each.parts(); ++piece) pieces.emplace_back(&each, piece);
  }
  std::vector<KeyGradients<S>> own(static_cast<std::size_t>(most_parts - 1));
  for (KeyGradients<S>& each : own) each = {like(saved.k), like(saved.v)};
  parallel_for(static_cast<Index>(pieces.size()), [&](Index i) {
    const auto& [each, piece] = pieces[static_cast<std::size_t>(i)];
    each->attend(piece, own);
  });
  for (const AttentionBackward<S>& each : backward) each.add(own);
  return out;
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
