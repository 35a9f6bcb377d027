#pragma once

/// Attention as a sequence of launches, by the kernels for its head size and number of queries.

#include <lowrank/cuda/attention_backward.hpp>
#include <lowrank/cuda/attention_decode.hpp>
#include <lowrank/cuda/scratch.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

namespace detail {

inline void expect_heads(const AttentionArrays& a, const char* operation, int most) {
  check<ShapeError>(a.head_size > 0 && a.head_size <= most && a.head_size % 2 == 0, operation, "heads of ", a.head_size,
                    "; the kernels take even sizes up to ", most, ": pad the heads, or use the CPU");
  check<ShapeError>(a.kv_heads > 0 && a.heads % a.kv_heads == 0, operation, a.heads, " heads over ", a.kv_heads,
                    " key heads; each key head must serve as many");
  check<ShapeError>(a.queries <= a.keys, operation, a.queries, " queries over ", a.keys, " keys; the queries' own keys belong to them");
}

/// Pieces of the keys: two blocks a multiprocessor, of at least 256 keys, within the scratch.
template <int Size>
int decode_splits(const AttentionArrays& a, Index multiprocessors, const Scratch& scratch) {
  using Decode = AttentionDecode<Size>;
  const Index blocks = static_cast<Index>(a.kv_heads) * Decode{a}.head_blocks() * a.batch;
  const Index room = scratch.size / (static_cast<Index>(a.heads) * a.batch * Decode::warps * Decode::piece_size);
  Index splits = ceil_div(2 * multiprocessors, blocks);
  if (splits > a.keys / 256) splits = a.keys / 256;
  if (splits < 1) splits = 1;
  return static_cast<int>(splits < room ? splits : room);
}

template <int Size, class Launch>
void launch_attention(Launch& launch, const AttentionArrays& a, const Scratch& scratch) {
  const int splits = a.queries == 1 ? decode_splits<Size>(a, launch.multiprocessors(), scratch) : 0;
  if (splits == 0) return launch(AttentionForwardKernel<Size>{a});
  const AttentionDecode<Size> decode{a, splits, scratch.data};
  launch(decode);
  launch(AttentionDecodeCombine<Size>{decode});
}

template <int Size, class Launch>
void launch_attention_backward(Launch& launch, const AttentionArrays& a) {
  launch(AttentionDelta{a});
  launch(AttentionBackwardKeys<Size>{a});
  launch(AttentionBackwardQueries<Size>{a});
}

}  // namespace detail

/// y and log_sum_exp of AttentionArrays: one query a sequence over its cache in pieces (AttentionDecode) where the scratch holds them, else
/// AttentionForwardKernel. Throws ShapeError for heads that are odd or larger than 256, or do not share their keys evenly.
template <class Launch>
void launch_attention(Launch& launch, const AttentionArrays& a, const Scratch& scratch = {}) {
  detail::expect_heads(a, "attention", 256);
  if (a.queries == 0 || a.batch == 0) return;
  if (a.head_size <= 32) return detail::launch_attention<32>(launch, a, scratch);
  if (a.head_size <= 64) return detail::launch_attention<64>(launch, a, scratch);
  if (a.head_size <= 128) return detail::launch_attention<128>(launch, a, scratch);
  detail::launch_attention<256>(launch, a, scratch);
}

/// dq, dk and dv for g, after launch_attention. Throws ShapeError for heads that are odd or larger than 128: the sums of dK and dV of 256
/// do not fit a thread's registers.
template <class Launch>
void launch_attention_backward(Launch& launch, const AttentionArrays& a) {
  detail::expect_heads(a, "attention backward", 128);
  if (a.queries == 0 || a.batch == 0) return;
  if (a.head_size <= 32) return detail::launch_attention_backward<32>(launch, a);
  if (a.head_size <= 64) return detail::launch_attention_backward<64>(launch, a);
  detail::launch_attention_backward<128>(launch, a);
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
