#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#include <lowrank/core/device.hpp>
#include <lowrank/core/matrix.hpp>
#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda {
class DeviceActivation;  // cuda/array.hpp; its name suffices for a Var<float, Cuda> in a declaration
}

namespace detail {
template <class S, class Device>
struct OnDevice;
template <class S>
struct OnDevice<S, Cpu> {
  using type = Activation<S>;
};
template <>
struct OnDevice<float, Cuda> {
  using type = cuda::DeviceActivation;
};
}  // namespace detail

/// The activation array of a device; on the CPU an Eigen matrix [rows, T].
template <class S, class Device = Cpu>
using ArrayOn = typename detail::OnDevice<S, Device>::type;

/// The array in host memory: what a program reads results with, whatever the device. Call it unqualified; each device brings its own.
inline const Activation<float>& to_host(const Activation<float>& x) { return x; }
inline Activation<float> to_host(Activation<float>&& x) { return std::move(x); }

namespace detail {

/// x in bfloat16, as a product in Compute::bf16 rounds it anyway: half the memory. Copies share the bits.
class RoundedCopy {
 public:
  explicit RoundedCopy(const Activation<float>& x);
  Activation<float> operator()() const;
  Tokens<float> tokens() const { return {bits_.get(), rows_, cols_}; }

 private:
  std::shared_ptr<std::uint16_t[]> bits_;
  Index rows_, cols_;
};

}  // namespace detail

/// What Compute::bf16 keeps of a value: calling it gives the value back, rounded.
inline auto rounded_copy(const Activation<float>& x) { return detail::RoundedCopy(x); }

/// How a value comes back in the backward pass when nobody held its array until then: computed again, or read from a bfloat16 copy.
///
/// The array itself is used while somebody still holds it. What was restored is shared by all that ask, and freed with the last of them.
template <class S, class Device = Cpu>
class Restorer {
 public:
  using Value = ArrayOn<S, Device>;

  /// By a copy in bfloat16 for products in Compute::bf16, which round their inputs so; in fp32 the array itself is kept.
  Restorer(std::weak_ptr<const Value> value, Compute compute) : value_(std::move(value)), rounds_(compute == Compute::bf16) {}
  /// By computing it again, to the same bits.
  Restorer(std::weak_ptr<const Value> value, std::function<Value()> restore) : value_(std::move(value)), restore_(std::move(restore)) {}

  /// Called while the value exists, by each operation that keeps it.
  void keep();
  std::shared_ptr<const Value> get();
  /// The copy, where that is all there is of the value now.
  std::shared_ptr<const detail::RoundedCopy> rounded() const { return restored_ || !value_.expired() ? nullptr : copy_; }

 private:
  std::weak_ptr<const Value> value_;
  bool rounds_ = false;
  std::function<Value()> restore_;
  std::shared_ptr<const detail::RoundedCopy> copy_;  // what restore_ reads, on the CPU
  std::shared_ptr<const Value> restored_;
};

template <class S, class Device>
void Restorer<S, Device>::keep() {
  if (restore_ || restored_) return;
  if constexpr (std::is_same_v<S, float>) {
    if constexpr (std::is_same_v<Device, Cpu>) {
      if (rounds_) copy_ = std::make_shared<const detail::RoundedCopy>(*value_.lock());
      if (rounds_) return void(restore_ = [copy = copy_] { return (*copy)(); });
    } else {
      if (rounds_) return void(restore_ = rounded_copy(*value_.lock()));
    }
  }
  restored_ = value_.lock();
}
template <class S, class Device>
std::shared_ptr<const ArrayOn<S, Device>> Restorer<S, Device>::get() {
  if (restored_) return restored_;
  if (auto value = value_.lock()) return value;
  return restored_ = std::make_shared<const Value>(restore_());
}

/// What a recorded operation keeps of an input: its array, or a way to restore it.
template <class S, class Device = Cpu>
class Kept {
 public:
  using Value = ArrayOn<S, Device>;

  explicit Kept(std::shared_ptr<const Value> value) : value_(std::move(value)) {}
  explicit Kept(std::shared_ptr<Restorer<S, Device>> restorer) : restorer_(std::move(restorer)) { restorer_->keep(); }

  /// The array. Hold the pointer while it is used.
  std::shared_ptr<const Value> get() const { return value_ ? value_ : restorer_->get(); }

  /// Calls read(Tokens) with the array, or with its copy in bfloat16 as it lies; on a device read(array).
  template <class Read>
  auto with_tokens(const Read& read) const {
    if constexpr (std::is_same_v<Device, Cpu> && std::is_same_v<S, float>) {
      if (const auto copy = value_ ? nullptr : restorer_->rounded()) return read(copy->tokens());
      const auto held = get();
      return read(Tokens<S>(*held));
    } else {
      const auto held = get();
      return read(*held);
    }
  }

 private:
  std::shared_ptr<const Value> value_;
  std::shared_ptr<Restorer<S, Device>> restorer_;
};

#if defined(LOWRANK_COMPILED)
extern template class Restorer<float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/autograd/kept.inl>
#endif
