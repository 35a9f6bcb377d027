#pragma once

#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void detail::accumulate(Activation<float>& into, const Activation<float>& more) {
  parallel_ranges(into.size(), 1 << 15,
                  [&](Index begin, Index end) { elementwise().add(more.data() + begin, 1, end - begin, into.data() + begin); });
}

#if defined(LOWRANK_COMPILING)
template class GradientFlow<float>;
template class Tape<float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
