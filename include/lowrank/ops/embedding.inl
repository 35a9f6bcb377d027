#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void detail::check_ids(const char* operation, std::span<const std::int32_t> ids, Index vocabulary) {
  for (std::size_t t = 0; t < ids.size(); ++t) {
    check<ValueError>(ids[t] >= 0 && ids[t] < vocabulary, operation, "id ", ids[t], " at token ", t, " is outside the table's ", vocabulary,
                      " rows; ids must be in [0, ", vocabulary, ")");
  }
}

#if defined(LOWRANK_COMPILING)
template void embedding_backward(WeightRef<float>, std::span<const std::int32_t>, const Activation<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
