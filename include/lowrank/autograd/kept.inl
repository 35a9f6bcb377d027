#pragma once

#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline constexpr Index rounded_grain = 1 << 15;

LOWRANK_INLINE RoundedCopy::RoundedCopy(const Activation<float>& x)
    : bits_(new std::uint16_t[static_cast<std::size_t>(x.size())]), rows_(x.rows()), cols_(x.cols()) {
  parallel_ranges(x.size(), rounded_grain,
                  [&](Index begin, Index end) { elementwise().to_bfloat16(x.data() + begin, end - begin, bits_.get() + begin); });
}
LOWRANK_INLINE Activation<float> RoundedCopy::operator()() const {
  Activation<float> x(rows_, cols_);
  parallel_ranges(x.size(), rounded_grain, [&](Index begin, Index end) {
    kernels::current_target().widen_bfloat16(bits_.get() + begin, end - begin, x.data() + begin);
  });
  return x;
}

}  // namespace detail

#if defined(LOWRANK_COMPILING)
template class Restorer<float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
