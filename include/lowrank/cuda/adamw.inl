#pragma once

#include <algorithm>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

LOWRANK_INLINE DeviceAdamW::DeviceAdamW(AdamW<float>& host) : host_(host), machine_(Machine::current().shared_from_this()) {
  std::vector<std::vector<OptimizedTensor>> groups(host.groups());
  std::vector<OptimizedTensor> all;
  host.visit_entries([&](const ParameterRef<float>& parameter, std::size_t group, Moments<float>& memory) {
    const Index size = parameter.size();
    parameter.device().drop();  // the host's numbers count
    ParameterCopy& copy = on_device(parameter.device(), parameter.value().data(), size);
    moments_.emplace_back(*machine_, memory.numbers.data(), 2 * size);
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

LOWRANK_INLINE void DeviceAdamW::begin_step() {
  host_.set_steps(host_.steps() + 1);
  std::vector<AdamWNumbers> numbers;
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    const auto f = AdamWRule::factors<float>(host_.options(group), host_.steps());
    numbers.push_back({f.decay, f.rate, f.correction, f.beta2, f.epsilon, f.toward1, f.toward2});
  }
  machine_->upload(numbers.data(), numbers_.get(), numbers.size() * sizeof(AdamWNumbers));
}

LOWRANK_INLINE void DeviceAdamW::update(double max_norm) {
  auto* const norm = reinterpret_cast<float*>(norm_.get());
  auto* const partials = reinterpret_cast<double*>(partials_.get());
  if (max_norm > 0 && all_.blocks > 0) {
    machine_->launch(SquaredSums{all_.data(), all_.count, all_.blocks, partials});
    machine_->launch(ClipFactor{partials, all_.blocks, static_cast<float>(max_norm), norm, norm + 1});
  }
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    const Tensors& of = groups_[group];
    const auto* const numbers = reinterpret_cast<const AdamWNumbers*>(numbers_.get()) + group;
    if (of.blocks > 0) machine_->launch(AdamWUpdate{of.data(), of.count, of.blocks, numbers, max_norm > 0 ? norm + 1 : nullptr});
  }
}

LOWRANK_INLINE void DeviceAdamW::download() {
  std::size_t i = 0;
  host_.visit_entries([&](const ParameterRef<float>& parameter, std::size_t, Moments<float>& memory) {
    const auto* const copy = parameter.device().get_if<ParameterCopy>();
    machine_->download(copy->numbers.memory.get(), parameter.value().data(), parameter.value().size_bytes());
    machine_->download(moments_[i++].memory.get(), memory.numbers.data(), memory.numbers.size() * sizeof(float));
  });
}

LOWRANK_INLINE DeviceAdamW::Tensors DeviceAdamW::put(std::vector<OptimizedTensor>& tensors) {
  Tensors result;
  result.count = detail::narrow(static_cast<Index>(tensors.size()));
  result.blocks = number_blocks(tensors.data(), result.count);
  const std::size_t bytes = tensors.size() * sizeof(OptimizedTensor);
  result.memory = machine_->reserve(std::max<std::size_t>(1, bytes));
  machine_->upload(tensors.data(), result.memory.get(), bytes);
  return result;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
