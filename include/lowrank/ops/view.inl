#pragma once

#include <lowrank/kernels/target/dispatch.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE const kernels::Elementwise& detail::elementwise() { return kernels::current_target().elementwise; }

LOWRANK_INLINE void detail::widen_bfloat16(const std::uint16_t* bits, Index n, float* out) {
  kernels::current_target().widen_bfloat16(bits, n, out);
}

}  // namespace lowrank::inline LOWRANK_ABI
