#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template Activation<float> relu_forward(const Activation<float>&);
template Activation<float> relu_backward(const Activation<float>&, const ActivationView<float>&);
template Activation<float> silu_forward(const Activation<float>&);
template Activation<float> silu_backward(const Activation<float>&, const ActivationView<float>&);
template Activation<float> gelu_forward(const Activation<float>&);
template Activation<float> gelu_backward(const Activation<float>&, const ActivationView<float>&);
template Activation<float> gelu_tanh_forward(const Activation<float>&);
template Activation<float> gelu_tanh_backward(const Activation<float>&, const ActivationView<float>&);
template Activation<float> swiglu_forward(const Activation<float>&, const ActivationView<float>&);
template SwigluGradients<float> swiglu_backward(const Activation<float>&, const ActivationView<float>&, const ActivationView<float>&);
template Activation<float> dropout_forward(const Activation<float>&, double, DropoutKey);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
