#pragma once

#include <algorithm>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
LOWRANK_INLINE void attend_query(const AttentionGrid<float>& grid, const ActivationView<float>& q, const ActivationView<float>& k,
                                 const ActivationView<float>& v, Index sequence, Index head, Index query, AttentionForward<float>& out) {
  const Index size = grid.shape.head_size, row = head / grid.group() * size, count = query + grid.offset() + 1;
  const Index first = sequence * grid.keys, column = sequence * grid.queries + query;
  Column<float> scores(count);
  const Column<float> qs = grid.scale() * q.col(column).segment(head * size, size);
  elementwise().dots(k.col(first).data() + row, k.outerStride(), count, qs.data(), size, scores.data());  // Kᵀ q
  const float max = max_of(scores.data(), count), sum = exponential(scores.data(), max, count, scores.data());
  float* y = &out.y(head * size, column);
  std::fill_n(y, size, 0.0f);
  scale(1 / sum, count, scores.data());
  elementwise().add_weighted_rows(v.col(first).data() + row, v.outerStride(), count, scores.data(), size, y);  // V p
  out.log_sum_exp(head, column) = max + std::log(sum);
}
}  // namespace detail

#if defined(LOWRANK_COMPILING)
template AttentionForward<float> attention_forward(const Activation<float>&, const ActivationView<float>&, const ActivationView<float>&,
                                                   const AttentionShape&, Compute);
template AttentionGradients<float> attention_backward(const Activation<float>&, const ActivationView<float>&, const ActivationView<float>&,
                                                      const ActivationView<float>&, const ActivationView<float>&,
                                                      const ActivationView<float>&, const AttentionShape&, Compute);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
