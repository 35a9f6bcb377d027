#pragma once

namespace lowrank::inline LOWRANK_ABI {

#if defined(LOWRANK_COMPILING)
template AttentionForward<float> attention_forward(const Activation<float>&, const ActivationView<float>&, const ActivationView<float>&,
                                                   const AttentionShape&, Compute);
template AttentionForward<float> attention_forward(const Activation<float>&, const KvCache&, const AttentionShape&, Compute);
template AttentionGradients<float> attention_backward(const Activation<float>&, const ActivationView<float>&, const ActivationView<float>&,
                                                      const ActivationView<float>&, const ActivationView<float>&,
                                                      const ActivationView<float>&, const AttentionShape&, Compute);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
