#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include <lowrank/autograd/kept.hpp>
#include <lowrank/cuda/machine.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Activations [rows, cols] in device memory, a token a column, as the CPU's Activation<float>. What Array<float, Cuda> is.
///
/// A copy has memory of its own; leftCols() and rightCols() are windows into the same. Lives on the machine that was in use when it was
/// made. Throws Error where the device has no room.
class DeviceActivation {
 public:
  using Scalar = float;

  DeviceActivation() = default;
  /// Not initialized.
  DeviceActivation(Index rows, Index cols);
  explicit DeviceActivation(const Activation<float>& host);
  DeviceActivation(const DeviceActivation& other);
  DeviceActivation(DeviceActivation&& other) noexcept { swap(other); }
  DeviceActivation& operator=(DeviceActivation other) noexcept {
    swap(other);
    return *this;
  }

  static DeviceActivation Constant(Index rows, Index cols, float value);
  static DeviceActivation Zero(Index rows, Index cols) { return Constant(rows, cols, 0); }
  static DeviceActivation Ones(Index rows, Index cols) { return Constant(rows, cols, 1); }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index size() const { return rows_ * cols_; }
  float* data() { return data_; }
  const float* data() const { return data_; }
  Machine& machine() const { return *machine_; }

  /// A copy in host memory; waits for the device.
  Activation<float> to_host() const;
  /// One number; waits for the device.
  float operator()(Index row, Index col) const;

  /// Throws ShapeError.
  DeviceActivation& operator+=(const DeviceActivation& more);
  DeviceActivation& operator*=(float factor);

  /// The first or last columns, in place.
  DeviceActivation leftCols(Index count) const { return window(0, count); }
  DeviceActivation rightCols(Index count) const { return window(cols_ - count, count); }
  /// Overwrites the columns from `first` on. Throws ShapeError.
  void set_columns(Index first, const DeviceActivation& from);

 private:
  DeviceActivation window(Index first, Index count) const;
  void swap(DeviceActivation& other) noexcept {
    std::swap(machine_, other.machine_), std::swap(memory_, other.memory_), std::swap(data_, other.data_);
    std::swap(rows_, other.rows_), std::swap(cols_, other.cols_);
  }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * sizeof(float); }
  std::byte* address() const { return reinterpret_cast<std::byte*>(data_); }

  std::shared_ptr<Machine> machine_;
  Memory memory_;
  float* data_ = nullptr;
  Index rows_ = 0, cols_ = 0;
};

/// A copy in host memory; waits for the device.
inline Activation<float> to_host(const DeviceActivation& x) { return x.to_host(); }

/// What Compute::bf16 keeps of a value for the backward pass: calling it gives the value back, rounded.
std::function<DeviceActivation()> rounded_copy(const DeviceActivation& x);

namespace detail {
inline int narrow(Index count) { return static_cast<int>(count); }
}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/array.inl>
#endif
