#pragma once

#include <utility>

#include <lowrank/autograd/on_cpu.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/ops/reduce.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// X repeated along its dimensions that are 1, up to [rows, cols]; X itself when it has that shape. Throws ShapeError.
///
/// Keeps X only if the result is kept, to repeat it again.
template <class S, class Device>
Var<S> broadcast_to(Var<S, Device> input, Index rows, Index cols) {
  Var<S> x = detail::on_cpu(std::move(input));
  if (x.rows() == rows && x.cols() == cols) return x;
  const auto backward = [rows = x.rows(), cols = x.cols()](auto& flow) { flow.add(0, repeat_backward(flow.gradient(), rows, cols)); };
  return record(repeat_forward(x.value(), rows, cols), {x}, backward).restored_by([kept = x.kept(), rows, cols] {
    return repeat_forward(*kept.get(), rows, cols);
  });
}

namespace detail {

/// The shape of two operands.
struct CommonShape {
  Index rows, cols;
};

/// What two operands are repeated to: in each dimension they are equal, or one of them is 1. Throws ShapeError.
template <class S, class Device>
CommonShape common_shape(const char* operation, const Var<S, Device>& a, const Var<S, Device>& b) {
  const bool fit = (a.rows() == b.rows() || a.rows() == 1 || b.rows() == 1) && (a.cols() == b.cols() || a.cols() == 1 || b.cols() == 1);
  check<ShapeError>(fit, operation, "the operands are [", a.rows(), ", ", a.cols(), "] and [", b.rows(), ", ", b.cols(),
                    "] but must have one shape, or 1 where they differ");
  return {a.rows() == 1 ? b.rows() : a.rows(), a.cols() == 1 ? b.cols() : a.cols()};
}

template <class S, class Device>
bool have_same_shape(const Var<S, Device>& a, const Var<S, Device>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols();
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
