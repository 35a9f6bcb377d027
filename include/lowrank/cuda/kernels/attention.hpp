#pragma once

#include <cmath>
#include <cstdint>

#include <lowrank/cuda/kernels/simt.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// What attention_forward and attention_backward work on: arrays of float with a token a column, as the CPU's. heads / kv_heads query heads
/// share a key head; `batch` sequences follow each other; query i sees the keys j ≤ i + keys − queries. head_size is even, at most `Size`.
struct AttentionArrays {
  const float *q = nullptr, *k = nullptr, *v = nullptr;
  int heads = 1, kv_heads = 1, head_size = 0, batch = 1, queries = 0, keys = 0;
  float* y = nullptr;            ///< [heads · head_size, batch · queries]
  float* log_sum_exp = nullptr;  ///< [heads, batch · queries]
  const float* g = nullptr;      ///< dL/dY
  float* delta = nullptr;        ///< Σ g∘y of each head of each token, [heads, batch · queries]
  float *dq = nullptr, *dk = nullptr, *dv = nullptr;

  constexpr int group() const { return heads / kv_heads; }
  constexpr int offset() const { return keys - queries; }
  LOWRANK_DEVICE float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_size)); }
  /// Where a head of a token begins.
  constexpr Index query_at(int sequence, int head, int token) const {
    return ((static_cast<Index>(sequence) * queries + token) * heads + head) * head_size;
  }
  constexpr Index key_at(int sequence, int kv_head, int token) const {
    return ((static_cast<Index>(sequence) * keys + token) * kv_heads + kv_head) * head_size;
  }
  constexpr Index row_at(int sequence, int head, int token) const {
    return (static_cast<Index>(sequence) * queries + token) * heads + head;
  }
};

namespace detail {

/// Four neighbours of bfloat16.
struct alignas(8) PairOfPairs {
  std::uint32_t first, second;
};

inline constexpr int attention_threads = 128, attention_rows = 64, warp_rows = 16;

/// Tokens of one head as rows of bfloat16 in shared memory, [Rows, Size], zero past the head and past the last token. Eight loads of a
/// thread are under way at a time.
template <int Size, int Rows, class Simt>
LOWRANK_DEVICE void load_head(Simt& t, const float* from, Index step, int head_size, int tokens, BFloat16* to) {
  constexpr int fours = Size / 4, jump = attention_threads / fours, all = Rows / jump, together = all < 8 ? all : 8;
  static_assert(jump * fours == attention_threads && all * jump == Rows && all % together == 0, "every thread copies as many");
  const int first_row = t.thread() / fours, column = t.thread() % fours * 4;
  const bool is_whole = head_size == Size && is_aligned(from);
  const float* at = from + first_row * step + column;
  auto* pairs = reinterpret_cast<PairOfPairs*>(to + first_row * (Size + 8) + column);
  for (int first = 0; first < all; first += together) {
    Float4 four[together];
    LOWRANK_CUDA_UNROLL
    for (int n = 0; n < together; ++n, at += jump * step) {
      four[n] = {};
      if (first_row + (first + n) * jump >= tokens) continue;
      if (is_whole)
        four[n] = *reinterpret_cast<const Float4*>(at);
      else
        four[n] = load_four(at - column, column, head_size);
    }
    LOWRANK_CUDA_UNROLL
    for (int n = 0; n < together; ++n, pairs += jump * (Size + 8) / 4)
      *pairs = {bfloat16_pair(four[n].number[0], four[n].number[1]), bfloat16_pair(four[n].number[2], four[n].number[3])};
  }
}

/// C [16, Columns] of a warp = A Bᵀ: A is 16 rows, B `Columns` rows of [.., Size] in shared memory.
template <int Size, int Columns, class Simt>
LOWRANK_DEVICE void multiply_rows(Simt& t, const BFloat16* a_rows, const BFloat16* b_rows, float (&c)[Columns / 8][4]) {
  LOWRANK_CUDA_UNROLL
  for (int j = 0; j < Columns / 8; ++j) c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
  LOWRANK_CUDA_UNROLL
  for (int d = 0; d < Size; d += 16) {
    std::uint32_t a[4];
    load_a(t, a, a_rows + d, Size + 8);
    LOWRANK_CUDA_UNROLL
    for (int j = 0; j < Columns / 16; ++j) {
      std::uint32_t b[2][2];
      load_b(t, b, b_rows + 16 * j * (Size + 8) + d, Size + 8);
      t.mma(c[2 * j], a, b[0]);
      t.mma(c[2 * j + 1], a, b[1]);
    }
  }
}

/// Sums [16, Size] of a warp += P B: P [16, Depth] lies in the registers that a product gave, which are those that the next one takes; B is
/// `Depth` rows of [.., Size] in shared memory.
template <int Size, int Depth, class Simt>
LOWRANK_DEVICE void add_product(Simt& t, const float (&p)[Depth / 8][4], const BFloat16* b_rows, float (&sums)[Size / 8][4]) {
  LOWRANK_CUDA_UNROLL
  for (int k = 0; k < Depth / 16; ++k) {
    const std::uint32_t a[4] = {bfloat16_pair(p[2 * k][0], p[2 * k][1]), bfloat16_pair(p[2 * k][2], p[2 * k][3]),
                                bfloat16_pair(p[2 * k + 1][0], p[2 * k + 1][1]), bfloat16_pair(p[2 * k + 1][2], p[2 * k + 1][3])};
    LOWRANK_CUDA_UNROLL
    for (int d = 0; d < Size / 16; ++d) {
      std::uint32_t b[2][2];
      load_b_transposed(t, b, b_rows + 16 * k * (Size + 8) + 16 * d, Size + 8);
      t.mma(sums[2 * d], a, b[0]);
      t.mma(sums[2 * d + 1], a, b[1]);
    }
  }
}

/// Writes rows `first` … of a warp's sums times a factor a row to tokens of one head; e / 2 picks the row's factor.
template <int Size, class Simt>
LOWRANK_DEVICE void store_head(Simt& t, const float (&sums)[Size / 8][4], const float (&factor)[2], int first, int tokens, int head_size,
                               Index step, float* to) {
  LOWRANK_CUDA_UNROLL
  for (int d = 0; d < Size / 8; ++d) {
    LOWRANK_CUDA_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int row = first + t.lane() / 4 + e / 2 * 8, column = 8 * d + t.lane() % 4 * 2 + e % 2;
      if (row < tokens && column < head_size) to[row * step + column] = sums[d][e] * factor[e / 2];
    }
  }
}

/// A block for 64 tokens of a head of a sequence.
inline LaunchShape attention_shape(int tokens, int heads, int batch, std::size_t shared_bytes) {
  return {.x = static_cast<unsigned>(ceil_div(tokens, attention_rows)),
          .y = static_cast<unsigned>(heads),
          .z = static_cast<unsigned>(batch),
          .threads = attention_threads,
          .shared_bytes = shared_bytes};
}

constexpr int smaller(int a, int b) { return a < b ? a : b; }

}  // namespace detail

/// Y = V softmax(Kᵀ Q / √head_size), causal, with a running maximum and sum; no [queries, keys] array. Dao et al. 2022, algorithm 1.
///
/// A block of 4 warps takes 64 queries of a head, a warp 16 of them, and runs over the keys 64 at a time. Products on tensor cores (Q, K, V
/// and the probabilities rounded to bfloat16), the softmax in fp32. Grid: queries / 64, heads, batch; the longest first.
template <int Size>
struct AttentionForwardKernel {
  static constexpr int most_threads = detail::attention_threads, block = detail::attention_rows, stride = Size + 8;
  static constexpr int least_blocks = Size <= 128 ? 3 : 2;
  struct Shared {
    alignas(16) BFloat16 q[block * stride], k[block * stride], v[block * stride];
  };
  AttentionArrays a;

  LaunchShape shape() const { return detail::attention_shape(a.queries, a.heads, a.batch, sizeof(Shared)); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    const int head = t.block_y(), sequence = t.block_z(), kv_head = head / a.group();
    const int query = (static_cast<int>(ceil_div(a.queries, block)) - 1 - t.block_x()) * block, first = t.warp() * detail::warp_rows;
    const Index query_step = static_cast<Index>(a.heads) * a.head_size, key_step = static_cast<Index>(a.kv_heads) * a.head_size;
    detail::load_head<Size, block>(t, a.q + a.query_at(sequence, head, query), query_step, a.head_size, a.queries - query, s.q);
    float sums[Size / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
    const int end = detail::smaller(a.keys, query + block + a.offset());
    for (int key = 0; key < end; key += block) {
      t.sync();
      detail::load_head<Size, block>(t, a.k + a.key_at(sequence, kv_head, key), key_step, a.head_size, a.keys - key, s.k);
      detail::load_head<Size, block>(t, a.v + a.key_at(sequence, kv_head, key), key_step, a.head_size, a.keys - key, s.v);
      t.sync();
      float p[block / 8][4];
      detail::multiply_rows<Size, block>(t, s.q + first * stride, s.k, p);
      soften(t, p, query + first + a.offset(), key, largest, total, sums);
      detail::add_product<Size, block>(t, p, s.v, sums);
    }
    const float inverse[2] = {1.0f / total[0], 1.0f / total[1]};
    detail::store_head<Size>(t, sums, inverse, query + first, a.queries, a.head_size, query_step, a.y + a.query_at(sequence, head, 0));
    for (int r = 0; r < 2; ++r) {
      const int row = query + first + t.lane() / 4 + 8 * r;
      if (t.lane() % 4 == 0 && row < a.queries && a.log_sum_exp)
        a.log_sum_exp[a.row_at(sequence, head, row)] = largest[r] + std::log(total[r]);
    }
  }

 private:
  /// Scores to e^(score − largest), masked ones to 0; what was summed before is brought to the new largest. A row lies in four lanes.
  template <class Simt>
  LOWRANK_DEVICE void soften(Simt& t, float (&p)[block / 8][4], int last_key, int key, float (&largest)[2], float (&total)[2],
                             float (&sums)[Size / 8][4]) const {
    const float scale = a.scale();
    LOWRANK_CUDA_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int visible = detail::smaller(last_key + t.lane() / 4 + 8 * r + 1, a.keys) - key;  // keys of this block that the row sees
      float most = largest[r];
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < block / 8 * 2; ++i) {
        float& score = p[i / 2][2 * r + i % 2];
        score = i / 2 * 8 + t.lane() % 4 * 2 + i % 2 < visible ? score * scale : -INFINITY;
        most = std::fmax(most, score);
      }
      most = std::fmax(most, t.shuffle_xor(most, 1));
      most = std::fmax(most, t.shuffle_xor(most, 2));
      float sum = 0;
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < block / 8 * 2; ++i) {
        float& score = p[i / 2][2 * r + i % 2];
        score = std::exp(score - most);
        sum += score;
      }
      sum += t.shuffle_xor(sum, 1);
      sum += t.shuffle_xor(sum, 2);
      const float correction = std::exp(largest[r] - most);
      total[r] = total[r] * correction + sum;
      largest[r] = most;
      LOWRANK_CUDA_UNROLL
      for (int d = 0; d < Size / 8; ++d) sums[d][2 * r] *= correction, sums[d][2 * r + 1] *= correction;
    }
  }
};

/// delta = Σ g∘y of each head of each token: the derivative of a softmax along itself. A warp a head of a token; grid: heads · tokens / 4.
struct AttentionDelta {
  static constexpr int most_threads = 128;
  AttentionArrays a;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(ceil_div(static_cast<Index>(a.heads) * a.batch * a.queries, most_threads / warp_size)),
            .threads = most_threads};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index row = static_cast<Index>(t.block_x()) * (most_threads / warp_size) + t.warp();
    if (row >= static_cast<Index>(a.heads) * a.batch * a.queries) return;  // a whole warp
    float sum = 0;
    for (int i = t.lane(); i < a.head_size; i += warp_size) sum += a.g[row * a.head_size + i] * a.y[row * a.head_size + i];
    sum = warp_sum(t, sum);
    if (t.lane() == 0) a.delta[row] = sum;
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
