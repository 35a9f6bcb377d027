#pragma once

/// Attention of one new token over a long cache: the keys in pieces, for one query a head gives the device too few blocks otherwise.

#include <cmath>

#include <lowrank/cuda/kernels/attention.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A piece of softmax(Kᵀ q / √head_size) and of V times it, for each warp's share of the keys: largest score, Σ e^(score − largest), and
/// the sum of values so weighed. AttentionDecodeCombine puts the pieces together. Dao et al. 2023, "Flash-Decoding".
///
/// A warp takes every fourth key of its block's range for up to four heads that share it, so that K and V are read once; a lane holds every
/// 32nd element of a head. fp32 throughout: the work is bound by the memory. Grid: pieces, kv_heads · ⌈group / 4⌉, batch; 128 threads.
template <int Size>
struct AttentionDecode {
  static constexpr int most_threads = 128, warps = most_threads / warp_size, heads_at_once = 4, of_lane = Size / warp_size;
  static constexpr int piece_size = Size + 2;
  AttentionArrays a;  ///< queries is 1
  int splits = 1;
  float* pieces = nullptr;  ///< [batch, heads, splits · 4, Size + 2]

  constexpr int head_blocks() const { return static_cast<int>(ceil_div(a.group(), heads_at_once)); }
  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(splits),
            .y = static_cast<unsigned>(a.kv_heads * head_blocks()),
            .z = static_cast<unsigned>(a.batch),
            .threads = most_threads};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const int kv_head = t.block_y() / head_blocks(), first = t.block_y() % head_blocks() * heads_at_once, sequence = t.block_z();
    const int begin = static_cast<int>(static_cast<Index>(a.keys) * t.block_x() / splits);
    const int end = static_cast<int>(static_cast<Index>(a.keys) * (t.block_x() + 1) / splits);
    float q[heads_at_once][of_lane], sums[heads_at_once][of_lane] = {}, total[heads_at_once] = {};
    float largest[heads_at_once] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    LOWRANK_CUDA_UNROLL
    for (int h = 0; h < heads_at_once; ++h) {
      const int head = detail::smaller(kv_head * a.group() + first + h, a.heads - 1);  // one too many is computed and not stored
      read(t, a.q + a.query_at(sequence, head, 0), q[h]);
    }
    for (int key = begin + t.warp(); key < end; key += warps) {
      float k[of_lane], v[of_lane];
      read(t, a.k + a.key_at(sequence, kv_head, key), k);
      read(t, a.v + a.key_at(sequence, kv_head, key), v);
      LOWRANK_CUDA_UNROLL
      for (int h = 0; h < heads_at_once; ++h) add_key(t, q[h], k, v, largest[h], total[h], sums[h]);
    }
    LOWRANK_CUDA_UNROLL
    for (int h = 0; h < heads_at_once; ++h)
      if (first + h < a.group()) store(t, sequence, kv_head * a.group() + first + h, largest[h], total[h], sums[h]);
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE void read(Simt& t, const float* head, float (&out)[of_lane]) const {
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < of_lane; ++i) {
      const int at = t.lane() + i * warp_size;
      out[i] = at < a.head_size ? head[at] : 0.0f;
    }
  }

  template <class Simt>
  LOWRANK_DEVICE void add_key(Simt& t, const float (&q)[of_lane], const float (&k)[of_lane], const float (&v)[of_lane], float& largest,
                              float& total, float (&sums)[of_lane]) const {
    float score = 0;
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < of_lane; ++i) score += q[i] * k[i];
    score = warp_sum(t, score) * a.scale();
    const float most = std::fmax(largest, score), correction = std::exp(largest - most), weight = std::exp(score - most);
    total = total * correction + weight;
    largest = most;
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < of_lane; ++i) sums[i] = sums[i] * correction + weight * v[i];
  }

  template <class Simt>
  LOWRANK_DEVICE void store(Simt& t, int sequence, int head, float largest, float total, const float (&sums)[of_lane]) const {
    const Index row = static_cast<Index>(sequence) * a.heads + head;
    float* const piece = pieces + ((row * splits + t.block_x()) * warps + t.warp()) * piece_size;
    if (t.lane() == 0) piece[0] = largest, piece[1] = total;
    for (int i = 0; i < of_lane; ++i) piece[2 + t.lane() + i * warp_size] = sums[i];
  }
};

/// y and log Σ exp of each head from its pieces, in their order. A warp a head; grid: heads · batch.
template <int Size>
struct AttentionDecodeCombine {
  using Decode = AttentionDecode<Size>;
  static constexpr int most_threads = warp_size;
  Decode decode;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(decode.a.heads), .y = static_cast<unsigned>(decode.a.batch), .threads = most_threads};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const AttentionArrays& a = decode.a;
    const int head = t.block_x(), sequence = t.block_y(), count = decode.splits * Decode::warps;
    const float* const pieces = decode.pieces + (static_cast<Index>(sequence) * a.heads + head) * count * Decode::piece_size;
    float largest = -INFINITY, total = 0;
    for (int i = 0; i < count; ++i) largest = std::fmax(largest, pieces[i * Decode::piece_size]);
    for (int i = 0; i < count; ++i) total += pieces[i * Decode::piece_size + 1] * std::exp(pieces[i * Decode::piece_size] - largest);
    for (int at = t.lane(); at < a.head_size; at += warp_size) {
      float sum = 0;
      for (int i = 0; i < count; ++i) sum += pieces[i * Decode::piece_size + 2 + at] * std::exp(pieces[i * Decode::piece_size] - largest);
      a.y[a.query_at(sequence, head, 0) + at] = sum / total;
    }
    if (t.lane() == 0 && a.log_sum_exp) a.log_sum_exp[a.row_at(sequence, head, 0)] = largest + std::log(total);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
