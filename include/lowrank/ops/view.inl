#pragma once

#include <lowrank/kernels/target/dispatch.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE const kernels::Elementwise& detail::elementwise() { return kernels::current_target().elementwise; }

}  // namespace lowrank::inline LOWRANK_ABI
