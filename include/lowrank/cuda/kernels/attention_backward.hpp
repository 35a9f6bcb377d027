#pragma once

#include <cmath>

#include <lowrank/cuda/kernels/attention.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// dK and dV of attention: with P = e^(Kᵀ Q − lse) and dS = P ∘ (Vᵀ G − delta), dV = Σ G Pᵀ and dK = Σ Q dSᵀ / √head_size over the queries
/// of all heads that share the keys. P is recomputed. Dao et al. 2022, algorithm 4.
///
/// A block owns 64 keys of a key head, a warp 16 of them, and runs over the queries 32 at a time in a fixed order: no atomics. Everything
/// is transposed, rows are keys, so that P and dS leave one product in the registers that the next one reads. Grid: keys / 64, kv_heads,
/// batch.
template <int Size>
struct AttentionBackwardKeys {
  static constexpr int most_threads = detail::attention_threads, block = detail::attention_rows, step = 32, stride = Size + 8;
  struct Shared {
    alignas(16) BFloat16 k[block * stride], v[block * stride], q[step * stride], g[step * stride];
    float log_sum_exp[step], delta[step];
  };
  AttentionArrays a;

  LaunchShape shape() const { return detail::attention_shape(a.keys, a.kv_heads, a.batch, sizeof(Shared)); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    const int key = t.block_x() * block, kv_head = t.block_y(), sequence = t.block_z(), first = t.warp() * detail::warp_rows;
    const Index key_step = static_cast<Index>(a.kv_heads) * a.head_size;
    detail::load_head<Size, block>(t, a.k + a.key_at(sequence, kv_head, key), key_step, a.head_size, a.keys - key, s.k);
    detail::load_head<Size, block>(t, a.v + a.key_at(sequence, kv_head, key), key_step, a.head_size, a.keys - key, s.v);
    float dk[Size / 8][4] = {}, dv[Size / 8][4] = {};
    const int begin = key > a.offset() ? (key - a.offset()) / step * step : 0;  // queries before it see none of these keys
    for (int head = kv_head * a.group(); head < (kv_head + 1) * a.group(); ++head)
      for (int query = begin; query < a.queries; query += step) {
        load_queries(t, s, sequence, head, query);
        float p[step / 8][4], ds[step / 8][4];
        detail::multiply_rows<Size, step>(t, s.k + first * stride, s.q, p);
        detail::multiply_rows<Size, step>(t, s.v + first * stride, s.g, ds);
        differentiate(t, s, key + first, query, p, ds);
        detail::add_product<Size, step>(t, p, s.g, dv);
        detail::add_product<Size, step>(t, ds, s.q, dk);
      }
    const float one[2] = {1.0f, 1.0f}, scale[2] = {a.scale(), a.scale()};
    detail::store_head<Size>(t, dv, one, key + first, a.keys, a.head_size, key_step, a.dv + a.key_at(sequence, kv_head, 0));
    detail::store_head<Size>(t, dk, scale, key + first, a.keys, a.head_size, key_step, a.dk + a.key_at(sequence, kv_head, 0));
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE void load_queries(Simt& t, Shared& s, int sequence, int head, int query) const {
    const Index query_step = static_cast<Index>(a.heads) * a.head_size, at = a.query_at(sequence, head, query);
    t.sync();
    detail::load_head<Size, step>(t, a.q + at, query_step, a.head_size, a.queries - query, s.q);
    detail::load_head<Size, step>(t, a.g + at, query_step, a.head_size, a.queries - query, s.g);
    for (int i = t.thread(); i < step; i += t.threads()) {
      const bool is_inside = query + i < a.queries;
      s.log_sum_exp[i] = is_inside ? a.log_sum_exp[a.row_at(sequence, head, query + i)] : 0.0f;
      s.delta[i] = is_inside ? a.delta[a.row_at(sequence, head, query + i)] : 0.0f;
    }
    t.sync();
  }

  /// p: scores to probabilities; ds: Vᵀ G to p ∘ (Vᵀ G − delta). Rows are keys, columns queries.
  template <class Simt>
  LOWRANK_DEVICE void differentiate(Simt& t, const Shared& s, int key, int query, float (&p)[step / 8][4], float (&ds)[step / 8][4]) const {
    const float scale = a.scale();
    LOWRANK_CUDA_UNROLL
    for (int j = 0; j < step / 8; ++j) {
      LOWRANK_CUDA_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int row = key + t.lane() / 4 + e / 2 * 8, column = 8 * j + t.lane() % 4 * 2 + e % 2;
        const bool is_visible = row < a.keys && query + column < a.queries && row <= query + column + a.offset();
        p[j][e] = is_visible ? std::exp(p[j][e] * scale - s.log_sum_exp[column]) : 0.0f;
        ds[j][e] = is_visible ? p[j][e] * (ds[j][e] - s.delta[column]) : 0.0f;
      }
    }
  }
};

/// dQ = Σ K dS / √head_size over the keys that a query sees; dS as above. A block owns 64 queries of a head and runs over the keys 32 at a
/// time. Grid: queries / 64, heads, batch.
template <int Size>
struct AttentionBackwardQueries {
  static constexpr int most_threads = detail::attention_threads, block = detail::attention_rows, step = 32, stride = Size + 8;
  struct Shared {
    alignas(16) BFloat16 q[block * stride], g[block * stride], k[step * stride], v[step * stride];
  };
  AttentionArrays a;

  LaunchShape shape() const { return detail::attention_shape(a.queries, a.heads, a.batch, sizeof(Shared)); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    const int query = t.block_x() * block, head = t.block_y(), sequence = t.block_z(), kv_head = head / a.group();
    const int first = t.warp() * detail::warp_rows;
    const Index query_step = static_cast<Index>(a.heads) * a.head_size, key_step = static_cast<Index>(a.kv_heads) * a.head_size;
    detail::load_head<Size, block>(t, a.q + a.query_at(sequence, head, query), query_step, a.head_size, a.queries - query, s.q);
    detail::load_head<Size, block>(t, a.g + a.query_at(sequence, head, query), query_step, a.head_size, a.queries - query, s.g);
    float log_sum_exp[2] = {}, delta[2] = {}, dq[Size / 8][4] = {};
    for (int r = 0; r < 2; ++r) {
      const int row = query + first + t.lane() / 4 + 8 * r;
      if (row >= a.queries) continue;
      log_sum_exp[r] = a.log_sum_exp[a.row_at(sequence, head, row)];
      delta[r] = a.delta[a.row_at(sequence, head, row)];
    }
    const int end = detail::smaller(a.keys, query + block + a.offset());
    for (int key = 0; key < end; key += step) {
      t.sync();
      detail::load_head<Size, step>(t, a.k + a.key_at(sequence, kv_head, key), key_step, a.head_size, a.keys - key, s.k);
      detail::load_head<Size, step>(t, a.v + a.key_at(sequence, kv_head, key), key_step, a.head_size, a.keys - key, s.v);
      t.sync();
      float p[step / 8][4], ds[step / 8][4];
      detail::multiply_rows<Size, step>(t, s.q + first * stride, s.k, p);
      detail::multiply_rows<Size, step>(t, s.g + first * stride, s.v, ds);
      differentiate(t, query + first, key, log_sum_exp, delta, p, ds);
      detail::add_product<Size, step>(t, ds, s.k, dq);
    }
    const float scale[2] = {a.scale(), a.scale()};
    detail::store_head<Size>(t, dq, scale, query + first, a.queries, a.head_size, query_step, a.dq + a.query_at(sequence, head, 0));
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE void differentiate(Simt& t, int query, int key, const float (&log_sum_exp)[2], const float (&delta)[2],
                                    float (&p)[step / 8][4], float (&ds)[step / 8][4]) const {
    const float scale = a.scale();
    LOWRANK_CUDA_UNROLL
    for (int j = 0; j < step / 8; ++j) {
      LOWRANK_CUDA_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int row = query + t.lane() / 4 + e / 2 * 8, column = key + 8 * j + t.lane() % 4 * 2 + e % 2;
        const bool is_visible = row < a.queries && column < a.keys && column <= row + a.offset();
        const float probability = is_visible ? std::exp(p[j][e] * scale - log_sum_exp[e / 2]) : 0.0f;
        ds[j][e] = is_visible ? probability * (ds[j][e] - delta[e / 2]) : 0.0f;
      }
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
