#pragma once

#include <memory>
#include <vector>

#include <lowrank/cuda/ops.hpp>
#include <lowrank/optim/adamw.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

struct OptimizedTensor;  // cuda/kernels/adamw.hpp

/// AdamW on a GPU, with the parameters, groups, options and state of one on the CPU: three launches for the norm and the clipping of all
/// gradients together, one a group for the step.
///
///   AdamW<float> optimizer{parameters(lora)};  cuda::DeviceAdamW steps(optimizer);
///   … backward …  steps.step(1.0);             steps.download();   // before the numbers are read or saved on the host
///
/// Begins with the host's numbers; its optimizer must outlive this. A step leaves the gradients zero.
class DeviceAdamW {
 public:
  /// Throws ValueError for a parameter without a place for its copy.
  explicit DeviceAdamW(AdamW<float>& host);

  /// One update of every parameter, with gradients clipped to max_norm together; 0: as they are.
  void step(double max_norm = 0) {
    begin_step();
    update(max_norm);
  }
  /// The two halves of step(): the numbers of the next step, which a recording must not hold, and the update, which it may.
  void begin_step();
  void update(double max_norm);

  /// Brings parameters and state back to the host; waits for the device.
  void download();

 private:
  struct Tensors {
    Memory memory;
    int count = 0, blocks = 0;

    const OptimizedTensor* data() const { return reinterpret_cast<const OptimizedTensor*>(memory.get()); }
  };
  Tensors put(std::vector<OptimizedTensor>& tensors);

  AdamW<float>& host_;
  std::shared_ptr<Machine> machine_;
  std::vector<ConstantCopy> moments_;
  std::vector<Tensors> groups_;
  Tensors all_;
  Memory numbers_, partials_, norm_;
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/adamw.inl>
#endif
