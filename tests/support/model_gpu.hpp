#pragma once

/// A Machine that runs kernels on the model of a GPU's block (support/simt.hpp): the host side of lowrank/cuda/ without a GPU.

#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <set>

#include <lowrank/cuda/machine.hpp>

#include <support/simt.hpp>

namespace simt_test {

/// Memory that begins as NaN, so that what was never written shows.
class ModelHeap : public lowrank::cuda::Heap {
 public:
  std::byte* allocate(std::size_t bytes) override {
    if (bytes > room - used_) return nullptr;
    auto* const memory = static_cast<std::byte*>(std::aligned_alloc(512, (bytes + 511) / 512 * 512));
    std::memset(memory, 0xff, bytes);
    used_ += bytes;
    sizes_[memory] = bytes;
    ++allocations;
    return memory;
  }
  void release(std::byte* memory) noexcept override {
    used_ -= sizes_[memory];
    sizes_.erase(memory);
    std::free(memory);
  }

  std::size_t used() const { return used_; }
  std::size_t room = std::size_t{1} << 30;
  int allocations = 0;

 private:
  std::size_t used_ = 0;
  std::map<std::byte*, std::size_t> sizes_;
};

class ModelGpu : public lowrank::cuda::Machine {
 public:
  explicit ModelGpu(Schedule schedule = {}, bool has_wgmma = false) : ModelGpu(std::make_shared<ModelHeap>(), schedule, has_wgmma) {}
  ModelGpu(std::shared_ptr<ModelHeap> heap_of, Schedule schedule, bool has_wgmma)
      : lowrank::cuda::Machine(heap_of), heap(std::move(heap_of)), model_(schedule) {
    claims.has_wgmma = has_wgmma;
  }

  std::shared_ptr<ModelHeap> heap;
  int launches = 0;
  /// What traits() says; the more multiprocessors, the more pieces a product's depth or an attention's keys are cut into.
  lowrank::cuda::DeviceTraits claims{.multiprocessors = 4, .capability_major = 9};

  lowrank::cuda::DeviceTraits traits() const override { return claims; }
  void launch(const lowrank::cuda::AnyKernel& kernel) override;
  void copy(const std::byte* from, std::byte* to, std::size_t bytes) override {
    run_or_record([=] { std::memmove(to, from, bytes); });
  }
  void clear(std::byte* to, std::size_t bytes) override {
    run_or_record([=] { std::memset(to, 0, bytes); });
  }
  void synchronize() override {}
  void download(const std::byte* from, void* to, std::size_t bytes) override {
    if (recorded_) throw std::logic_error("a recorded step waits for the device");
    std::memcpy(to, from, bytes);
  }

 protected:
  void copy_in(const void* from, std::byte* to, std::size_t bytes) override {
    run_or_record([=] { std::memcpy(to, from, bytes); });
  }
  void begin_recording() override { recorded_ = std::make_unique<Work>(); }
  std::unique_ptr<lowrank::cuda::RecordedWork> end_recording() override { return std::move(recorded_); }
  std::shared_ptr<std::byte> host_memory(std::size_t bytes) override {
    return std::shared_ptr<std::byte>(new std::byte[bytes], std::default_delete<std::byte[]>());
  }

 private:
  struct Work : lowrank::cuda::RecordedWork {
    std::vector<std::function<void()>> steps;
    void run() override {
      for (const auto& step : steps) step();
    }
  };
  void run_or_record(std::function<void()> step) {
    if (recorded_)
      recorded_->steps.push_back(std::move(step));
    else
      step();
  }

  simt_test::Machine model_;
  std::unique_ptr<Work> recorded_;
};

}  // namespace simt_test
