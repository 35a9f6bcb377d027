#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template Var<float> rms_norm(const Var<float>&, Parameter<float>&, float);
template Var<float> relu(const Var<float>&);
template Var<float> silu(const Var<float>&);
template Var<float> gelu(const Var<float>&);
template Var<float> gelu_tanh(const Var<float>&);
template Var<float> swiglu(const Var<float>&, const Var<float>&);
template Var<float> dropout(const Var<float>&, double, DropoutKey);
template Var<float> rope(const Var<float>&, std::shared_ptr<const RopeTable<float>>);
template Var<float> rope(const Var<float>&, std::span<const Index>, const RopeOptions&);
template Var<float> attention(const Var<float>&, const Var<float>&, const Var<float>&, const AttentionShape&, Compute);
template Var<float> cross_entropy(const Var<float>&, std::span<const std::int32_t>);
template Var<float> linear_cross_entropy(Parameter<float>&, const Var<float>&, std::span<const std::int32_t>, Compute);
template Var<float> mse(const Var<float>&, Activation<float>);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
