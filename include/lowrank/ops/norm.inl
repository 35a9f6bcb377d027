#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template Activation<float> rms_norm_forward(const Activation<float>&, const VectorView<float>&, float);
template RmsNormGradients<float> rms_norm_backward(const Activation<float>&, const VectorView<float>&, float, const ActivationView<float>&,
                                                   bool);
template Activation<float> layer_norm_forward(const Activation<float>&, const VectorView<float>&, const VectorView<float>&, float);
template LayerNormGradients<float> layer_norm_backward(const Activation<float>&, const VectorView<float>&, float,
                                                       const ActivationView<float>&, bool, bool);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
