#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template class RopeTable<float>;
template Activation<float> rope_forward(const Activation<float>&, const RopeTable<float>&);
template Activation<float> rope_backward(const Activation<float>&, const RopeTable<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
