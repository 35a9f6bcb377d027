#pragma once

#include <cstddef>
#include <utility>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

LOWRANK_INLINE DeviceActivation::DeviceActivation(Index rows, Index cols)
    : machine_(Machine::current().shared_from_this()), rows_(rows), cols_(cols) {
  if (size() > 0) memory_ = machine_->reserve(bytes());
  data_ = reinterpret_cast<float*>(memory_.get());
}

LOWRANK_INLINE DeviceActivation::DeviceActivation(const Activation<float>& host) : DeviceActivation(host.rows(), host.cols()) {
  machine_->upload(host.data(), address(), bytes());
}

LOWRANK_INLINE DeviceActivation::DeviceActivation(const DeviceActivation& other)
    : machine_(other.machine_), rows_(other.rows_), cols_(other.cols_) {
  if (size() == 0) return;
  memory_ = machine_->reserve(bytes());
  data_ = reinterpret_cast<float*>(memory_.get());
  machine_->copy(other.address(), address(), bytes());
}

LOWRANK_INLINE DeviceActivation DeviceActivation::Constant(Index rows, Index cols, float value) {
  if (value != 0) return DeviceActivation(Activation<float>(Activation<float>::Constant(rows, cols, value)));
  DeviceActivation x(rows, cols);
  if (x.size() > 0) x.machine_->clear(x.address(), x.bytes());
  return x;
}

LOWRANK_INLINE Activation<float> DeviceActivation::to_host() const {
  Activation<float> host(rows_, cols_);
  if (size() > 0) machine_->download(address(), host.data(), bytes());
  return host;
}

LOWRANK_INLINE float DeviceActivation::operator()(Index row, Index col) const {
  float number = 0;
  machine_->download(reinterpret_cast<const std::byte*>(data_ + col * rows_ + row), &number, sizeof(float));
  return number;
}

LOWRANK_INLINE DeviceActivation& DeviceActivation::operator+=(const DeviceActivation& more) {
  check<ShapeError>(rows_ == more.rows_ && cols_ == more.cols_, "add", "the operands are [", rows_, ", ", cols_, "] and [", more.rows_,
                    ", ", more.cols_, "] but must have one shape");
  machine_->launch(AddScaled{more.data_, 1, size(), data_});
  return *this;
}

LOWRANK_INLINE DeviceActivation& DeviceActivation::operator*=(float factor) {
  machine_->launch(Scale{factor, nullptr, size(), data_});
  return *this;
}

LOWRANK_INLINE void DeviceActivation::set_columns(Index first, const DeviceActivation& from) {
  check<ShapeError>(from.rows_ == rows_ && first >= 0 && first + from.cols_ <= cols_, "set_columns", "columns ", first, " to ",
                    first + from.cols_, " of ", from.rows_, " rows into [", rows_, ", ", cols_, "]");
  if (from.size() > 0) machine_->copy(from.address(), reinterpret_cast<std::byte*>(data_ + first * rows_), from.bytes());
}

LOWRANK_INLINE DeviceActivation DeviceActivation::window(Index first, Index count) const {
  DeviceActivation part;
  part.machine_ = machine_;
  part.memory_ = memory_;
  part.data_ = data_ + first * rows_;
  part.rows_ = rows_, part.cols_ = count;
  return part;
}

LOWRANK_INLINE std::function<DeviceActivation()> rounded_copy(const DeviceActivation& x) {
  const int rows = detail::narrow(x.rows()), cols = detail::narrow(x.cols());
  const Index stride = round_up(rows, chunk_size);
  Memory memory = x.machine().reserve(static_cast<std::size_t>(stride * cols) * sizeof(BFloat16));
  auto* const bits = reinterpret_cast<BFloat16*>(memory.get());
  if (x.size() > 0) x.machine().launch(ToBfloat16{x.data(), rows, cols, rows, 1, bits, stride});
  return [memory = std::move(memory), bits, stride, rows, cols] {
    DeviceActivation y(rows, cols);
    y.machine().launch(FromBfloat16{bits, stride, cols, rows, y.data()});
    return y;
  };
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
