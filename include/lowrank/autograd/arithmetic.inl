#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template Var<float> operator+(Var<float>, Var<float>);
template Var<float> operator*(const Var<float>&, const Var<float>&);
template Var<float> scale(Var<float>, float);
template Var<float> sum(const Var<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
