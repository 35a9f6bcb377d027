#pragma once

/// The pure operations of ops/ on a GPU, under their names: what the templates of autograd/functions.hpp find for Array<float, Cuda>.
/// Products round their factors to bfloat16 and sum in fp32, whatever Compute says; the rest is fp32.

#include <lowrank/autograd/parameter.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/cuda/array.hpp>
#include <lowrank/ops/attention.hpp>
#include <lowrank/ops/rope.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda {

/// Numbers of the host on the device: a frozen vector, or a table.
struct ConstantCopy : DeviceCopy {
  ConstantCopy(Machine& machine, const float* from, Index count)
      : memory(machine.uploaded(from, static_cast<std::size_t>(count) * sizeof(float))) {}
  const float* data() const { return reinterpret_cast<const float*>(memory.get()); }

  Memory memory;
};

/// A parameter's numbers and its gradient on the device. The gradient begins with zeros.
struct ParameterCopy : DeviceCopy {
  ParameterCopy(Machine& machine, const float* from, Index count) : numbers(machine, from, count), size(count), machine_(&machine) {}

  const float* value() const { return numbers.data(); }
  float* mutable_value() { return reinterpret_cast<float*>(numbers.memory.get()); }
  float* gradient();
  std::size_t bytes() const { return static_cast<std::size_t>(size) * sizeof(float); }

  ConstantCopy numbers;
  Index size;

 private:
  Machine* machine_;
  Memory gradient_;
};

/// The parameter on the machine in use, copied there when it is asked for the first time.
ParameterCopy& on_device(DeviceSlot& slot, const float* value, Index size);
template <int Rows, int Cols>
ParameterCopy& on_device(Parameter<float, Rows, Cols>& parameter) {
  return on_device(parameter.device, parameter.value.data(), parameter.size());
}

/// y = w ∘ x / √(mean(x²) + ε) of each token. Throws ShapeError.
DeviceActivation rms_norm_forward(const DeviceActivation& x, Parameter<float>& weight, float epsilon);
/// dX; the weight's gradient is added to it where the weight is trained.
DeviceActivation rms_norm_backward(const DeviceActivation& x, Parameter<float>& weight, float epsilon, const DeviceActivation& g);

/// Throws ShapeError.
DeviceActivation swiglu_forward(const DeviceActivation& gate, const DeviceActivation& up);
struct DeviceSwigluGradients {
  DeviceActivation dgate, dup;
};
DeviceSwigluGradients swiglu_backward(const DeviceActivation& gate, const DeviceActivation& up, const DeviceActivation& g);

/// Throws ShapeError.
DeviceActivation rope_forward(const DeviceActivation& x, const RopeTable<float>& table);
DeviceActivation rope_backward(const DeviceActivation& g, const RopeTable<float>& table);

struct DeviceAttentionForward {
  DeviceActivation y, log_sum_exp;
};
/// Causal attention; see attention_forward of ops/attention.hpp. Heads are even, at most 256 wide here and 128 in the backward pass. Throws
/// ShapeError, and ValueError for a window, a scale or a cap.
DeviceAttentionForward attention_forward(const DeviceActivation& q, const DeviceActivation& k, const DeviceActivation& v,
                                         const AttentionShape& shape, Compute = Compute::bf16);
struct DeviceAttentionGradients {
  DeviceActivation dq, dk, dv;
};
DeviceAttentionGradients attention_backward(const DeviceActivation& q, const DeviceActivation& k, const DeviceActivation& v,
                                            const DeviceActivation& y, const DeviceActivation& log_sum_exp, const DeviceActivation& g,
                                            const AttentionShape& shape, Compute = Compute::bf16);

}  // namespace cuda

/// rms_norm on a GPU. Keeps X; the result is computed again where it is needed.
Var<float, Cuda> rms_norm(const Var<float, Cuda>& x, Parameter<float>& weight, float epsilon);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/ops.inl>
#endif
