#pragma once

#include <span>
#include <string>

#include <lowrank/core/device.hpp>
#include <lowrank/core/matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A named weight with its gradient: value [rows, cols] and grad, row-major. Frozen ones (trainable = false) never get a gradient.
///
/// Backward passes add into grad; the optimizer's zero_grad() clears it. A recorded operation refers to its parameters: they must stay
/// where they are until backward() has run. A vector of n numbers (bias, norm weight) is [n, 1].
template <class S, int Rows = Dynamic, int Cols = Dynamic>
struct Parameter {
  using Scalar = S;
  using Matrix = Weight<S, Rows, Cols>;

  std::string name;
  Matrix value = initial();
  Matrix grad = initial();  ///< empty until the first gradient (zero at once for static sizes)
  bool trainable = true;
  bool is_vector = false;  ///< files hold it as [n], not as [n, 1]
  Index planes = 0;        ///< above 0 files hold it as [planes, rows / planes, cols]
  DeviceSlot device = {};  ///< value and gradient on a GPU, while it is trained there

  Index rows() const { return value.rows(); }
  Index cols() const { return value.cols(); }
  Index size() const { return value.size(); }
  bool empty() const { return value.size() == 0; }
  /// A parameter that exists and is to be trained.
  bool needs_grad() const { return trainable && !empty(); }

  /// grad, allocated and zero when there was none.
  Matrix& gradient() {
    if (grad.rows() != rows() || grad.cols() != cols()) grad = Matrix::Zero(rows(), cols());
    return grad;
  }
  void zero_grad() { grad.setZero(); }

 private:
  static Matrix initial() {
    if constexpr (Rows != Dynamic && Cols != Dynamic) return Matrix::Zero();
    return Matrix();
  }
};

/// What an optimizer sees of a parameter: its numbers, by rows.
template <class S>
struct ParameterRef {
  std::string name;
  std::span<S> value, grad;
  Index rows, cols;
  DeviceSlot* device = nullptr;
};

/// Refers to a parameter and allocates its gradient. The parameter must stay where it is.
template <class S, int Rows, int Cols>
ParameterRef<S> reference(Parameter<S, Rows, Cols>& parameter) {
  auto& grad = parameter.gradient();
  const auto size = static_cast<std::size_t>(parameter.size());
  return {parameter.name, {parameter.value.data(), size}, {grad.data(), size}, parameter.rows(), parameter.cols(), &parameter.device};
}

}  // namespace lowrank::inline LOWRANK_ABI
