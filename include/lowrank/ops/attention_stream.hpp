#pragma once

/// Attention of few queries: the keys and values of a head go by once, for all queries of its group together.

#include <lowrank/ops/attention_grid.hpp>
#include <lowrank/ops/kv_view.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Keys of a chunk, which begins at a multiple of it. Fixed, so that a query's numbers depend on its keys alone: not on the threads, nor on
/// the queries beside it.
inline constexpr Index kv_chunk = 256;

/// Up to so many queries chunks are spread over the threads, and put together in their order afterwards.
inline constexpr Index few_queries = 16;

/// Outputs and log-sum-exps of all queries. In each chunk a query makes the mean of the values under its weights, and means are added by
/// what their chunks weigh: Dao et al. 2023, "Flash-Decoding for long-context inference". Sums are fp32, Element is float or BFloat16.
template <class Element>
void stream_attention(const AttentionGrid<float>& grid, const ActivationView<float>& q, const KvView<Element>& k, const KvView<Element>& v,
                      AttentionForward<float>& out);

#if defined(LOWRANK_COMPILED)
extern template void stream_attention(const AttentionGrid<float>&, const ActivationView<float>&, const KvView<float>&, const KvView<float>&,
                                      AttentionForward<float>&);
extern template void stream_attention(const AttentionGrid<float>&, const ActivationView<float>&, const KvView<BFloat16>&,
                                      const KvView<BFloat16>&, AttentionForward<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/attention_stream.inl>
#endif
