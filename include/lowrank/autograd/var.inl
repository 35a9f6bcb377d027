#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template class Var<float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
