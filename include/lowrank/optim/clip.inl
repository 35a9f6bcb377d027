#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template double gradient_norm(const std::vector<ParameterRef<float>>&);
template double clip_gradient_norm(const std::vector<ParameterRef<float>>&, double);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
