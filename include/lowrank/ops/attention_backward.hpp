#pragma once

/// Gradients of attention: blocks of queries against blocks of keys, and how they are spread over the threads.

#include <algorithm>
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
class AttentionBackward {
 public:
  AttentionBackward(const AttentionGrid<S>& grid, const AttentionSaved<S>& saved)
      : grid_(grid),
        in_(saved),
        k_(kv_view<S>(saved.k, grid.shape.kv_heads)),
        v_(kv_view<S>(saved.v, grid.shape.kv_heads)),
        out_{Activation<S>(saved.q.rows(), saved.q.cols()), Activation<S>(saved.k.rows(), saved.k.cols()),
             Activation<S>(saved.v.rows(), saved.v.cols())} {}

  AttentionGradients<S> run() {
    const Index blocks = ceil_div(grid_.queries, query_block(grid_)), heads = grid_.shape.batch * grid_.shape.kv_heads;
    const Index parts = std::clamp<Index>(ceil_div(wanted_pieces, heads), 1, std::max<Index>(1, grid_.queries / part_queries));
    // The last part sees all keys, so it writes the result; each other has arrays of its own, of which it uses the keys that it sees.
    std::vector<KeyGradients> own(static_cast<std::size_t>(parts - 1));
    for (KeyGradients& each : own) each = {Activation<S>(out_.dk.rows(), out_.dk.cols()), Activation<S>(out_.dv.rows(), out_.dv.cols())};
    parallel_for(heads * parts, [&](Index piece) {
      const Index part = parts - 1 - piece / heads, head = piece % heads;  // the longest first
      const bool is_last = part == parts - 1;
      KeyGradients* const into = is_last ? nullptr : &own[static_cast<std::size_t>(part)];
      attend_part(head / grid_.shape.kv_heads, head % grid_.shape.kv_heads, blocks * part / parts, blocks * (part + 1) / parts,
                  into ? into->dk : out_.dk, into ? into->dv : out_.dv);
    });
    for (Index part = parts - 2; part >= 0; --part) add(own[static_cast<std::size_t>(part)], seen_by(blocks * (part + 1) / parts));
    return std::move(out_);
  }

 private:
  static constexpr Index wanted_pieces = 32, part_queries = 512;
  struct KeyGradients {
    Activation<S> dk, dv;
  };
  /// One thread's arrays, [head_size or keys, columns] each.
  struct Columns {
    S *q, *g, *dq;                // q times the scale
    S *log_sum_exp, *projection;  // projection is Σ g∘y, the derivative of a softmax along itself
    S *p, *ds;
    Index count;
  };

  Index size() const { return grid_.shape.head_size; }
  /// Keys of a sequence that the queries of its first blocks see.
  Index seen_by(Index blocks) const { return std::min(blocks * query_block(grid_), grid_.queries) + grid_.offset(); }

  /// Blocks [begin, end) of one head's queries.
  void attend_part(Index sequence, Index kv_head, Index begin, Index end, Activation<S>& dk, Activation<S>& dv) {
    const Index keys = end == ceil_div(grid_.queries, query_block(grid_)) ? grid_.keys : seen_by(end);
    dk.block(kv_head * size(), sequence * grid_.keys, size(), keys).setZero();
    dv.block(kv_head * size(), sequence * grid_.keys, size(), keys).setZero();
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
    const Index columns = at.count, token = block.sequence * grid_.keys + key, row = block.kv_head * size();
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
  void add(const KeyGradients& part, Index keys) {
    for_each_token(out_.dk.rows(), grid_.shape.batch * keys, [&](Index i) {
      const Index token = i / keys * grid_.keys + i % keys;
      out_.dk.col(token) += part.dk.col(token);
      out_.dv.col(token) += part.dv.col(token);
    });
  }

  const AttentionGrid<S>& grid_;
  const AttentionSaved<S> in_;
  const KvView<S> k_, v_;
  AttentionGradients<S> out_;
};

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
