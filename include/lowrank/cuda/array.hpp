#pragma once

#include <lowrank/autograd/kept.hpp>
#include <lowrank/cuda/machine.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda {

/// Activations [rows, cols] in device memory, a token a column, as the CPU's Activation<float>. What Array<float, Cuda> is.
///
/// A copy has memory of its own; leftCols() and rightCols() are windows into the same. Lives on the machine that was in use when it was
/// made. Throws Error where the device has no room.
class DeviceActivation {
 public:
  using Scalar = float;

  DeviceActivation() = default;
  /// Not initialized.
  DeviceActivation(Index rows, Index cols) : machine_(Machine::current().shared_from_this()), rows_(rows), cols_(cols) {
    if (size() > 0) memory_ = machine_->reserve(bytes());
    data_ = reinterpret_cast<float*>(memory_.get());
  }
  explicit DeviceActivation(const Activation<float>& host) : DeviceActivation(host.rows(), host.cols()) {
    machine_->upload(host.data(), address(), bytes());
  }
  DeviceActivation(const DeviceActivation& other) : machine_(other.machine_), rows_(other.rows_), cols_(other.cols_) {
    if (size() == 0) return;
    memory_ = machine_->reserve(bytes());
    data_ = reinterpret_cast<float*>(memory_.get());
    machine_->copy(other.address(), address(), bytes());
  }
  DeviceActivation(DeviceActivation&& other) noexcept { swap(other); }
  DeviceActivation& operator=(DeviceActivation other) noexcept {
    swap(other);
    return *this;
  }

  static DeviceActivation Constant(Index rows, Index cols, float value) {
    DeviceActivation x(rows, cols);
    if (value == 0) {
      if (x.size() > 0) x.machine_->clear(x.address(), x.bytes());
    } else {
      x.machine_->upload(Activation<float>::Constant(rows, cols, value).eval().data(), x.address(), x.bytes());
    }
    return x;
  }
  static DeviceActivation Zero(Index rows, Index cols) { return Constant(rows, cols, 0); }
  static DeviceActivation Ones(Index rows, Index cols) { return Constant(rows, cols, 1); }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index size() const { return rows_ * cols_; }
  float* data() { return data_; }
  const float* data() const { return data_; }
  Machine& machine() const { return *machine_; }

  /// A copy in host memory; waits for the device.
  Activation<float> to_host() const {
    Activation<float> host(rows_, cols_);
    if (size() > 0) machine_->download(address(), host.data(), bytes());
    return host;
  }
  /// One number; waits for the device.
  float operator()(Index row, Index col) const {
    float number = 0;
    machine_->download(reinterpret_cast<const std::byte*>(data_ + col * rows_ + row), &number, sizeof(float));
    return number;
  }

  DeviceActivation& operator+=(const DeviceActivation& more) {
    check<ShapeError>(rows_ == more.rows_ && cols_ == more.cols_, "add", "the operands are [", rows_, ", ", cols_, "] and [", more.rows_,
                      ", ", more.cols_, "] but must have one shape");
    machine_->launch(AddScaled{more.data_, 1, size(), data_});
    return *this;
  }
  DeviceActivation& operator*=(float factor) {
    machine_->launch(Scale{factor, nullptr, size(), data_});
    return *this;
  }

  /// The first or last columns, in place.
  DeviceActivation leftCols(Index count) const { return window(0, count); }
  DeviceActivation rightCols(Index count) const { return window(cols_ - count, count); }
  /// Overwrites the columns from `first` on. Throws ShapeError.
  void set_columns(Index first, const DeviceActivation& from) {
    check<ShapeError>(from.rows_ == rows_ && first >= 0 && first + from.cols_ <= cols_, "set_columns", "columns ", first, " to ",
                      first + from.cols_, " of ", from.rows_, " rows into [", rows_, ", ", cols_, "]");
    if (from.size() > 0) machine_->copy(from.address(), reinterpret_cast<std::byte*>(data_ + first * rows_), from.bytes());
  }

 private:
  DeviceActivation window(Index first, Index count) const {
    DeviceActivation part;
    part.machine_ = machine_;
    part.memory_ = memory_;
    part.data_ = data_ + first * rows_;
    part.rows_ = rows_, part.cols_ = count;
    return part;
  }
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

}  // namespace cuda

}  // namespace lowrank::inline LOWRANK_ABI
