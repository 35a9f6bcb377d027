#pragma once

#include <vector>

#include <lowrank/cuda/ops.hpp>
#include <lowrank/optim/adamw.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// AdamW on a GPU, with the parameters, groups, options and state of one on the CPU: three launches for the norm and the clipping of all
/// gradients together, one a group for the step.
///
///   AdamW<float> optimizer{parameters(lora)};  cuda::DeviceAdamW steps(optimizer);
///   … backward …  steps.step(1.0);             steps.download();   // before the numbers are read or saved on the host
///
/// Begins with the host's numbers; its optimizer must outlive this. A step leaves the gradients zero.
class DeviceAdamW {
 public:
  explicit DeviceAdamW(AdamW<float>& host) : host_(host), machine_(Machine::current().shared_from_this()) {
    std::vector<std::vector<OptimizedTensor>> groups(host.groups());
    std::vector<OptimizedTensor> all;
    host.visit_entries([&](ParameterRef<float>& parameter, std::size_t group, std::span<float> memory) {
      check<ValueError>(parameter.device != nullptr, "device_adamw", parameter.name,
                        " has no place for a copy on the device; make references with reference(parameter)");
      const auto size = static_cast<Index>(parameter.value.size());
      parameter.device->drop();  // the host's numbers count
      ParameterCopy& copy = on_device(*parameter.device, parameter.value.data(), size);
      moments_.emplace_back(*machine_, memory.data(), 2 * size);
      auto* const first = reinterpret_cast<float*>(moments_.back().memory.get());
      groups[group].push_back({copy.mutable_value(), copy.gradient(), first, first + size, size, 0});
    });
    for (auto& tensors : groups) {
      all.insert(all.end(), tensors.begin(), tensors.end());
      groups_.push_back(put(tensors));
    }
    all_ = put(all);
    const std::size_t bytes = groups_.size() * sizeof(AdamWNumbers);
    numbers_ = machine_->reserve(std::max<std::size_t>(1, bytes));
    partials_ = machine_->reserve(static_cast<std::size_t>(all_.blocks + 1) * sizeof(double));
    norm_ = machine_->reserve(2 * sizeof(float));
  }

  /// One update of every parameter, with gradients clipped to max_norm together; 0: as they are.
  void step(double max_norm = 0) {
    begin_step();
    update(max_norm);
  }
  /// The two halves of step(): the numbers of the next step, which a recording must not hold, and the update, which it may.
  void begin_step() {
    host_.set_steps(host_.steps() + 1);
    std::vector<AdamWNumbers> numbers;
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      const auto f = AdamWRule::factors<float>(host_.options(group), host_.steps());
      numbers.push_back({f.decay, f.rate, f.correction, f.beta2, f.epsilon, f.toward1, f.toward2});
    }
    machine_->upload(numbers.data(), numbers_.get(), numbers.size() * sizeof(AdamWNumbers));
  }
  void update(double max_norm) {
    auto* const norm = reinterpret_cast<float*>(norm_.get());
    auto* const partials = reinterpret_cast<double*>(partials_.get());
    if (max_norm > 0 && all_.blocks > 0) {
      machine_->launch(SquaredSums{tensors(all_), all_.count, all_.blocks, partials});
      machine_->launch(ClipFactor{partials, all_.blocks, static_cast<float>(max_norm), norm, norm + 1});
    }
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      const Tensors& of = groups_[group];
      const auto* const numbers = reinterpret_cast<const AdamWNumbers*>(numbers_.get()) + group;
      if (of.blocks > 0) machine_->launch(AdamWUpdate{tensors(of), of.count, of.blocks, numbers, max_norm > 0 ? norm + 1 : nullptr});
    }
  }

  /// Brings parameters and state back to the host; waits for the device.
  void download() {
    std::size_t i = 0;
    host_.visit_entries([&](ParameterRef<float>& parameter, std::size_t, std::span<float> memory) {
      const auto* const copy = parameter.device->get_if<ParameterCopy>();
      machine_->download(copy->numbers.memory.get(), parameter.value.data(), parameter.value.size_bytes());
      machine_->download(moments_[i++].memory.get(), memory.data(), memory.size_bytes());
    });
  }

 private:
  struct Tensors {
    Memory memory;
    int count = 0, blocks = 0;
  };
  Tensors put(std::vector<OptimizedTensor>& tensors) {
    Tensors result;
    result.count = detail::narrow(static_cast<Index>(tensors.size()));
    result.blocks = number_blocks(tensors.data(), result.count);
    const std::size_t bytes = tensors.size() * sizeof(OptimizedTensor);
    result.memory = machine_->reserve(std::max<std::size_t>(1, bytes));
    machine_->upload(tensors.data(), result.memory.get(), bytes);
    return result;
  }
  static const OptimizedTensor* tensors(const Tensors& of) { return reinterpret_cast<const OptimizedTensor*>(of.memory.get()); }

  AdamW<float>& host_;
  std::shared_ptr<Machine> machine_;
  std::vector<ConstantCopy> moments_;
  std::vector<Tensors> groups_;
  Tensors all_;
  Memory numbers_, partials_, norm_;
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
