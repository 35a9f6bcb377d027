#pragma once

/// The same numbers in another shape: transposed, reshaped, cut and put together.

#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/autograd/on_cpu.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/core/shape.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Xᵀ. Keeps nothing.
template <class S, class Device>
Var<S> transpose(const Var<S, Device>& input) {
  const Var<S> x = detail::on_cpu(input);
  return record(Activation<S>(x.value().transpose()), {x}, [](auto& flow) { flow.add(0, flow.gradient().transpose()); });
}

/// The numbers of X in the order of memory, column by column, as [rows, cols]: PyTorch's reshape of its [T, n]. Keeps nothing. Throws
/// ShapeError.
template <class S, class Device>
Var<S> reshape(Var<S, Device> input, Index rows, Index cols) {
  Var<S> x = detail::on_cpu(std::move(input));
  const Index old_rows = x.rows(), old_cols = x.cols();
  check<ShapeError>(element_count("reshape", "the result", {rows, cols}) == old_rows * old_cols, "reshape", "x is [", old_rows, ", ",
                    old_cols, "] but the result is to be [", rows, ", ", cols, "]; both must hold the same number of numbers");
  Activation<S> y = x.take();
  y.resize(rows, cols);
  return record(std::move(y), {x}, [old_rows, old_cols](auto& flow) {
    Activation<S> g = flow.take();
    g.resize(old_rows, old_cols);
    flow.add(0, std::move(g));
  });
}

/// The block [rows, cols] of X that begins at (row, col). Keeps nothing. Throws ShapeError.
template <class S, class Device>
Var<S> slice(const Var<S, Device>& input, Index row, Index col, Index rows, Index cols) {
  const Var<S> x = detail::on_cpu(input);
  const Index n = x.rows(), tokens = x.cols();
  const bool fits = row >= 0 && rows >= 0 && row <= n - rows && col >= 0 && cols >= 0 && col <= tokens - cols;
  check<ShapeError>(fits, "slice", "x is [", n, ", ", tokens, "] but the block is rows ", row, " to ", row + rows, " and columns ", col,
                    " to ", col + cols, "; it must lie in x");
  return record(Activation<S>(x.value().block(row, col, rows, cols)), {x}, [=](auto& flow) {
    if (Activation<S>* sum = flow.sum_so_far(0)) return void(sum->block(row, col, rows, cols) += flow.gradient());
    Activation<S> dx = Activation<S>::Zero(n, tokens);
    dx.block(row, col, rows, cols) = flow.gradient();
    flow.add(0, std::move(dx));
  });
}
/// `count` rows of X from `first` on.
template <class S, class Device>
Var<S> slice_rows(const Var<S, Device>& x, Index first, Index count) {
  return slice(x, first, 0, count, x.cols());
}
/// The same of columns.
template <class S, class Device>
Var<S> slice_cols(const Var<S, Device>& x, Index first, Index count) {
  return slice(x, 0, first, x.rows(), count);
}

namespace detail {

/// Two arrays, one below the other or side by side.
template <class S>
Var<S> joined(const char* operation, bool below, const Var<S>& a, const Var<S>& b) {
  check<ShapeError>(below ? a.cols() == b.cols() : a.rows() == b.rows(), operation, "the operands are [", a.rows(), ", ", a.cols(),
                    "] and [", b.rows(), ", ", b.cols(), "]; they must have the same ", below ? "columns" : "rows");
  const Index rows = a.rows(), cols = a.cols();
  Activation<S> y(below ? rows + b.rows() : rows, below ? cols : cols + b.cols());
  y.topLeftCorner(rows, cols) = a.value();
  y.bottomRightCorner(b.rows(), b.cols()) = b.value();
  return record(std::move(y), {a, b}, [rows, cols, b_rows = b.rows(), b_cols = b.cols()](auto& flow) {
    flow.add(0, flow.gradient().topLeftCorner(rows, cols));
    flow.add(1, flow.gradient().bottomRightCorner(b_rows, b_cols));
  });
}

/// Any number of arrays, by halves: each number is copied log2(parts) times.
template <class S, class Device>
Var<S> joined(const char* operation, bool below, std::span<const Var<S, Device>> parts) {
  check<ShapeError>(!parts.empty(), operation, "there is nothing to put together; give one array at least");
  if (parts.size() == 1) return on_cpu(parts[0]);
  const std::size_t half = parts.size() / 2;
  return joined(operation, below, joined(operation, below, parts.first(half)), joined(operation, below, parts.subspan(half)));
}

}  // namespace detail

/// Arrays of one width, one below the other: concat_rows({a, b, c}). Keeps nothing. Throws ShapeError.
template <class S, class Device>
Var<S> concat_rows(std::initializer_list<Var<S, Device>> parts) {
  return detail::joined("concat_rows", true, std::span<const Var<S, Device>>(parts.begin(), parts.size()));
}
template <class S, class Device>
Var<S> concat_rows(const std::vector<Var<S, Device>>& parts) {
  return detail::joined("concat_rows", true, std::span<const Var<S, Device>>(parts));
}

/// Arrays of one height, side by side: concat_cols({a, b, c}). Keeps nothing. Throws ShapeError.
template <class S, class Device>
Var<S> concat_cols(std::initializer_list<Var<S, Device>> parts) {
  return detail::joined("concat_cols", false, std::span<const Var<S, Device>>(parts.begin(), parts.size()));
}
template <class S, class Device>
Var<S> concat_cols(const std::vector<Var<S, Device>>& parts) {
  return detail::joined("concat_cols", false, std::span<const Var<S, Device>>(parts));
}

}  // namespace lowrank::inline LOWRANK_ABI
