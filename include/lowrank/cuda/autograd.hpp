#pragma once

/// Var and Tape on a GPU, for any C++20 compiler: Array<float, Cuda>, the operations of autograd/functions.hpp on it, linear layers with
/// low-rank updates, losses, AdamW.
///
///   const auto gpu = cuda::open_gpu();   // from the one unit that nvcc compiled, see cuda/gpu.hpp
///   cuda::Use use(gpu);
///   Tape<float, Cuda> tape;
///   Var<float, Cuda> y = forward_together(layers, tape.input(cuda::DeviceActivation(x)))[0];
///
/// Parameters, weights and adapters stay the host's objects; each keeps a copy on the device, made when it is used there for the first time
/// (DeviceSlot). Trained numbers come back with DeviceAdamW::download().

#include <lowrank/autograd/checkpoint.hpp>
#include <lowrank/autograd/functions.hpp>
#include <lowrank/cuda/adamw.hpp>
#include <lowrank/cuda/losses.hpp>
#include <lowrank/cuda/query.hpp>
#include <lowrank/cuda/updates.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// rms_norm on a GPU. Keeps X; the result is computed again where it is needed.
inline Var<float, Cuda> rms_norm(const Var<float, Cuda>& x, Parameter<float>& weight, float epsilon) {
  const Kept<float, Cuda> kept = x.kept();
  const auto backward = [kept, w = &weight, epsilon](auto& flow) {
    flow.add(0, cuda::rms_norm_backward(*kept.get(), *w, epsilon, flow.gradient()));
  };
  return record(cuda::rms_norm_forward(x.value(), weight, epsilon), {x}, backward, weight.needs_grad())
      .restored_by([kept, w = &weight, epsilon] { return cuda::rms_norm_forward(*kept.get(), *w, epsilon); });
}

}  // namespace lowrank::inline LOWRANK_ABI
