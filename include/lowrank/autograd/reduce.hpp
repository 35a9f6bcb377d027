#pragma once

/// Sums, means, largest numbers and softmax, of a whole array or along a dimension.

#include <algorithm>
#include <memory>
#include <utility>

#include <lowrank/autograd/arithmetic.hpp>
#include <lowrank/autograd/shape.hpp>
#include <lowrank/ops/softmax.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Σ along a dimension: of X [n, T] a [1, T] along the rows, an [n, 1] along the columns. Keeps nothing.
template <class S, class Device>
Var<S> sum(const Var<S, Device>& input, Dim along) {
  const Var<S> x = detail::on_cpu(input);
  const Index rows = x.rows(), cols = x.cols();
  auto y = repeat_backward(x.value(), along == Dim::rows ? 1 : rows, along == Dim::cols ? 1 : cols);
  return record(std::move(y), {x}, [rows, cols](auto& flow) { flow.add(0, repeat_forward(flow.gradient(), rows, cols)); });
}

/// Mean over all numbers of X, a [1, 1]; 0 of none. Keeps nothing.
template <class S, class Device>
Var<S> mean(const Var<S, Device>& x) {
  return sum(x) / static_cast<S>(std::max<Index>(1, x.rows() * x.cols()));
}
/// Mean along a dimension, of shapes as for sum; 0 of none. Keeps nothing.
template <class S, class Device>
Var<S> mean(const Var<S, Device>& x, Dim along) {
  return sum(x, along) / static_cast<S>(std::max<Index>(1, along == Dim::rows ? x.rows() : x.cols()));
}

/// Largest number along a dimension, of shapes as for sum; the first of equal ones gets the gradient. Keeps its place. Throws ShapeError
/// where there is no number.
template <class S, class Device>
Var<S> max(const Var<S, Device>& input, Dim along) {
  const Var<S> x = detail::on_cpu(input);
  if (along == Dim::cols) return transpose(max(transpose(x), Dim::rows));
  auto largest = largest_forward(x.value());
  return record(std::move(largest.values), {x}, [places = std::move(largest.rows), n = x.rows()](auto& flow) {
    flow.add(0, largest_backward(flow.gradient(), places, n));
  });
}

/// Softmax of each column, or of each row. Keeps the result.
template <class S, class Device>
Var<S> softmax(const Var<S, Device>& input, Dim along = Dim::rows) {
  const Var<S> x = detail::on_cpu(input);
  if (along == Dim::cols) return transpose(softmax(transpose(x)));
  const auto y = detail::share(softmax_forward(x.value()));
  return record(y, {x}, [y = std::shared_ptr<const Activation<S>>(y)](auto& flow) { flow.add(0, softmax_backward(*y, flow.gradient())); });
}

/// log of softmax, finite for any finite numbers. Keeps the result.
template <class S, class Device>
Var<S> log_softmax(const Var<S, Device>& input, Dim along = Dim::rows) {
  const Var<S> x = detail::on_cpu(input);
  if (along == Dim::cols) return transpose(log_softmax(transpose(x)));
  const auto y = detail::share(log_softmax_forward(x.value()));
  return record(y, {x},
                [y = std::shared_ptr<const Activation<S>>(y)](auto& flow) { flow.add(0, log_softmax_backward(*y, flow.gradient())); });
}

}  // namespace lowrank::inline LOWRANK_ABI
