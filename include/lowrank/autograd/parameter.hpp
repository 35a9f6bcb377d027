#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/device.hpp>
#include <lowrank/core/handle.hpp>
#include <lowrank/core/matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A named weight with its gradient: value [rows, cols] and grad, row-major. Frozen ones (trainable = false) never get a gradient.
///
/// Backward passes add into grad; the optimizer's zero_grad() clears it. A vector of n numbers (bias, norm weight) is [n, 1]. Optimizers
/// and recorded operations refer to it by handle: value may be assigned and the parameter moved, and they find it.
template <class S, int Rows = Dynamic, int Cols = Dynamic>
struct Parameter : Handled {
  using Scalar = S;
  using Matrix = Weight<S, Rows, Cols>;

  std::string name;
  Matrix value = initial();
  Matrix grad = initial();  ///< empty until the first gradient (zero at once for static sizes)
  bool trainable = true;
  bool is_vector = false;  ///< files hold it as [n], not as [n, 1]
  Index planes = 0;        ///< above 0 files hold it as [planes, rows / planes, cols]
  /// Of a convolution: files hold it as [rows, cols / Π kernel, kernel…], and a vector as [1, n, kernel…].
  std::vector<Index> kernel = {};
  DeviceSlot device = {};  ///< value and gradient on a GPU, while it is trained there

  Parameter() = default;
  Parameter(std::string parameter_name, Matrix numbers) : name(std::move(parameter_name)), value(std::move(numbers)) {}

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

/// A parameter of any sizes [rows, cols], wherever it is: what an optimizer sees of it. Made by reference(parameter).
template <class S>
class ParameterRef {
 public:
  std::string name;
  Index rows, cols;

  template <int Rows, int Cols>
  ParameterRef(std::string reference_name, Parameter<S, Rows, Cols>& parameter)
      : name(std::move(reference_name)), rows(parameter.rows()), cols(parameter.cols()), handle_(parameter), view_(&view_of<Rows, Cols>) {
    parameter.gradient();
  }

  /// Where its numbers and those of its gradient are now, by rows.
  struct View {
    std::span<S> value, grad;
    DeviceSlot* device;  ///< its place for a copy on a GPU
  };
  /// The gradient is allocated when there was none. Throws Error when the parameter is gone, ShapeError when it has another shape than
  /// before.
  View view() const;
  /// Parts of it. Throw the same.
  std::span<S> value() const { return view().value; }
  std::span<S> grad() const { return view().grad; }
  DeviceSlot& device() const { return *view().device; }
  Index size() const { return rows * cols; }
  /// Whether both refer to one parameter.
  bool is_same(const ParameterRef& other) const { return handle_ == other.handle_; }

 private:
  template <int Rows, int Cols>
  static View view_of(Handled& handled, Index& rows, Index& cols) {
    auto& parameter = static_cast<Parameter<S, Rows, Cols>&>(handled);
    rows = parameter.rows(), cols = parameter.cols();
    const auto size = static_cast<std::size_t>(parameter.size());
    return {{parameter.value.data(), size}, {parameter.gradient().data(), size}, &parameter.device};
  }

  Handle<Handled> handle_;
  View (*view_)(Handled& handled, Index& rows, Index& cols);
};

template <class S>
auto ParameterRef<S>::view() const -> View {
  Handled* const handled = handle_.get();
  check<Error>(handled != nullptr, "parameter", "'", name,
               "' is gone: its layer was destroyed or another was moved into its place; make the optimizer anew from parameters(model)");
  Index rows_now = 0, cols_now = 0;
  const View view = view_(*handled, rows_now, cols_now);
  check<ShapeError>(rows_now == rows && cols_now == cols, "parameter", "'", name, "' is [", rows_now, ", ", cols_now, "] but was [", rows,
                    ", ", cols, "] when it was handed to the optimizer; make the optimizer anew from parameters(model)");
  return view;
}

/// Refers to a parameter and allocates its gradient.
template <class S, int Rows, int Cols>
ParameterRef<S> reference(Parameter<S, Rows, Cols>& parameter) {
  return {parameter.name, parameter};
}

namespace detail {

/// Notices whether a parameter that a recorded operation reads by pointers is still where it was.
class Witness {
 public:
  template <class S, int Rows, int Cols>
  explicit Witness(Parameter<S, Rows, Cols>& parameter)
      : handle_(parameter),
        object_(&parameter),
        numbers_(parameter.value.data()),
        numbers_of_([](Handled& handled) -> const void* { return static_cast<Parameter<S, Rows, Cols>&>(handled).value.data(); }) {}

  /// Throws Error when the parameter has moved or ended, or its value was assigned.
  void check_unchanged() const {
    const bool is_there = handle_.get() == object_;
    check<Error>(is_there && numbers_of_(*object_) == numbers_, "backward",
                 is_there ? "a parameter was assigned" : "a layer or its update was destroyed or moved",
                 " between the forward pass and backward(), which reads it; run the forward pass again");
  }

 private:
  Handle<Handled> handle_;
  Handled* object_;
  const void* numbers_;
  const void* (*numbers_of_)(Handled&);
};

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
