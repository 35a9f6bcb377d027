#pragma once

#include <memory>
#include <utility>

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Tags that say where an array lives and an operation runs: here on the processor,
struct Cpu {};
/// and here on an NVIDIA GPU.
struct Cuda {};

/// What a device holds of an object, freed with it.
struct DeviceCopy {
  virtual ~DeviceCopy() = default;
};

/// An object's place for its copy on a device, made at the first use there and empty on the CPU.
///
/// A copy of the object begins without one, a moved object takes it along. Whoever changes the object's numbers on the host calls drop().
/// One thread at a time.
class DeviceSlot {
 public:
  DeviceSlot() = default;
  DeviceSlot(const DeviceSlot&) noexcept {}
  DeviceSlot(DeviceSlot&&) noexcept = default;
  DeviceSlot& operator=(const DeviceSlot&) noexcept {
    drop();
    return *this;
  }
  DeviceSlot& operator=(DeviceSlot&&) noexcept = default;

  /// The copy, made by make() (a unique_ptr<Copy>) if there is none.
  template <class Copy, class Make>
  Copy& get(const Make& make) {
    if (!copy_) copy_ = make();
    return static_cast<Copy&>(*copy_);
  }
  template <class Copy>
  Copy* get_if() const {
    return static_cast<Copy*>(copy_.get());
  }
  void drop() { copy_.reset(); }

 private:
  std::unique_ptr<DeviceCopy> copy_;
};

}  // namespace lowrank::inline LOWRANK_ABI
