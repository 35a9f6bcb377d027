#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/driver/scratch.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// What columns of queries made of some of their keys: means of values [size, columns], and of each column the largest score and
/// Σ e^(score − max), which is 0 where it saw none.
struct AttentionPart {
  float *means, *max, *sum;

  AttentionPart(float* memory, Index size, Index columns) : means(memory), max(memory + size * columns), sum(max + columns) {}
  static Index numbers(Index size, Index columns) { return (size + 2) * columns; }

  /// The mean over both parts' keys: each mean counts as much as its keys weigh.
  void add(const AttentionPart& other, Index size, Index columns) {
    for (Index c = 0; c < columns; ++c) {
      if (other.sum[c] == 0) continue;
      const float most = std::max(max[c], other.max[c]);
      const float own = sum[c] * std::exp(max[c] - most), others = other.sum[c] * std::exp(other.max[c] - most);
      max[c] = most, sum[c] = own + others;
      scale(own / sum[c], size, means + c * size);
      elementwise().add(other.means + c * size, others / sum[c], size, means + c * size);
    }
  }
};

template <class Element>
class AttentionStream {
 public:
  AttentionStream(const AttentionGrid<float>& grid, const ActivationView<float>& q, const KvView<Element>& k, const KvView<Element>& v,
                  AttentionForward<float>& out)
      : grid_(grid), q_(q), k_(k), v_(v), out_(out) {}

  void run() {
    const Index per_head = ceil_div(grid_.queries, queries()), blocks = grid_.shape.batch.count() * grid_.shape.kv_heads * per_head;
    const auto block_at = [&](Index i) {
      const Index query = i % per_head * queries(), head = i / per_head % grid_.shape.kv_heads;
      return QueryBlock{i / per_head / grid_.shape.kv_heads, head, query, std::min(queries(), grid_.queries - query)};
    };
    if (grid_.queries > few_queries) return parallel_for(blocks, [&](Index i) { attend(block_at(blocks - 1 - i)); });  // the longest first
    const Index first = grid_.begin(block_at(0)) / kv_chunk, chunks = ceil_div(grid_.keys, kv_chunk) - first,
                part = part_numbers(queries());
    float* const parts = kernels::Scratch<Parts>::template get<float>(blocks * chunks * part);
    const auto attend_piece = [&](Index piece) {
      const QueryBlock block = block_at(piece % blocks);
      const Index chunk = piece / blocks, columns = grid_.columns(block);
      float* const memory = kernels::Scratch<Columns>::template get<float>((size() + kv_chunk) * columns);
      grid_.gather(q_, block, memory, grid_.scale());
      attend_chunk(block, first + chunk, memory, memory + size() * columns,
                   part_at(parts + (piece % blocks * chunks + chunk) * part, block));
    };
    for_each_piece(blocks * chunks, attend_piece);
    for (Index i = 0; i < blocks; ++i) {
      const QueryBlock block = block_at(i);
      AttentionPart all = part_at(parts + i * chunks * part, block);
      for (Index chunk = 1; chunk < chunks; ++chunk)
        all.add(part_at(parts + (i * chunks + chunk) * part, block), size(), grid_.columns(block));
      finish(block, all);
    }
  }

 private:
  struct Parts {};
  struct Columns {};

  Index size() const { return grid_.shape.head_size; }
  Index queries() const { return std::max<Index>(1, 32 / grid_.group()); }  // of a block: some 32 columns
  Index part_numbers(Index count) const { return AttentionPart::numbers(size(), grid_.group() * count); }
  AttentionPart part_at(float* memory, const QueryBlock& block) const { return {memory, size(), grid_.columns(block)}; }
  const kernels::RowLoops<Element>& loops() const {
    if constexpr (std::is_same_v<Element, float>)
      return elementwise().float_rows;
    else
      return grid_.compute == Compute::fp32 ? elementwise().bfloat16_rows : elementwise().bfloat16_products;
  }

  /// Short work is done before a second thread has woken up.
  template <class Piece>
  void for_each_piece(Index count, const Piece& piece) const {
    if (q_.size() * grid_.keys > (Index{1} << 16)) return parallel_for(count, piece);
    for (Index i = 0; i < count; ++i) piece(i);
  }

  /// One chunk's part, from columns q [size, columns] that are scaled.
  void attend_chunk(const QueryBlock& block, Index chunk, const float* q, float* scores, AttentionPart part) const {
    const Index columns = grid_.columns(block), key = chunk * kv_chunk, first = grid_.first_key(block.sequence) + key;
    const Index count = std::clamp<Index>(grid_.end(block) - key, 0, kv_chunk);
    std::fill_n(part.means, size() * columns, 0.0f);
    loops().dots(k_.at(block.kv_head, first), k_.token_stride, count, q, columns, size(), scores, kv_chunk);  // Kᵀ q
    for (Index c = 0; c < columns; ++c) {
      float* const weights = scores + c * kv_chunk;
      const KeyRange visible = grid_.visible(block, c, key, count);
      float* const seen = weights + visible.first;
      if (grid_.shape.cap > 0) cap_scores(seen, static_cast<float>(grid_.shape.cap), visible.count());
      part.max[c] = max_of(seen, visible.count());
      part.sum[c] = visible.count() > 0 ? exponential(seen, part.max[c], visible.count(), seen) : 0.0f;
      if (visible.count() > 0) scale(1 / part.sum[c], visible.count(), seen);
      visible.mask(weights, count);
    }
    loops().add_weighted(v_.at(block.kv_head, first), v_.token_stride, count, scores, kv_chunk, columns, size(), part.means);  // V p
  }

  /// All chunks of a block, one after the other.
  void attend(const QueryBlock& block) const {
    const Index columns = grid_.columns(block), part = part_numbers(block.count);
    float* const memory = kernels::Scratch<Columns>::template get<float>((size() + kv_chunk) * columns + 2 * part);
    float* const parts = memory + (size() + kv_chunk) * columns;
    grid_.gather(q_, block, memory, grid_.scale());
    AttentionPart all = part_at(parts, block), next = part_at(parts + part, block);
    const Index first = grid_.begin(block) / kv_chunk;
    for (Index chunk = first; chunk * kv_chunk < grid_.end(block); ++chunk) {
      attend_chunk(block, chunk, memory, memory + size() * columns, chunk == first ? all : next);
      if (chunk > first) all.add(next, size(), columns);
    }
    finish(block, all);
  }

  void finish(const QueryBlock& block, const AttentionPart& all) const {
    grid_.scatter(all.means, block, out_.y);
    for (Index c = 0; c < grid_.columns(block); ++c)
      out_.log_sum_exp(grid_.head(block, c), grid_.token(block, c)) = all.max[c] + std::log(all.sum[c]);
  }

  const AttentionGrid<float>& grid_;
  const ActivationView<float>& q_;
  const KvView<Element>&k_, &v_;
  AttentionForward<float>& out_;
};

template <class Element>
void stream_attention(const AttentionGrid<float>& grid, const ActivationView<float>& q, const KvView<Element>& k, const KvView<Element>& v,
                      AttentionForward<float>& out) {
  AttentionStream<Element>(grid, q, k, v, out).run();
}

#if defined(LOWRANK_COMPILING)
template void stream_attention(const AttentionGrid<float>&, const ActivationView<float>&, const KvView<float>&, const KvView<float>&,
                               AttentionForward<float>&);
template void stream_attention(const AttentionGrid<float>&, const ActivationView<float>&, const KvView<BFloat16>&, const KvView<BFloat16>&,
                               AttentionForward<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail
