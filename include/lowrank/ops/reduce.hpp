#pragma once

/// Sums and largest numbers along a dimension, and what undoes a sum: numbers that are repeated along it.

#include <cmath>
#include <utility>
#include <vector>

#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The dimension of [rows, cols] that an operation runs along, and that a reduction leaves with one number: along the rows it takes the
/// numbers of a column together, which are a token's features (PyTorch's last dimension); along the columns those of a row.
enum class Dim { rows, cols };

/// X repeated along its dimensions that are 1, up to [rows, cols]. Throws ShapeError.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> repeat_forward(const X& x, Index rows, Index cols) {
  check<ShapeError>((x.rows() == rows || x.rows() == 1) && (x.cols() == cols || x.cols() == 1), "broadcast", "x is [", x.rows(), ", ",
                    x.cols(), "] but the result is to be [", rows, ", ", cols, "]; each dimension of x must be the result's, or 1");
  return x.replicate(x.rows() == rows ? 1 : rows, x.cols() == cols ? 1 : cols);
}

/// The sum of G over what repeat_forward repeated: [rows, cols], each that of G, or 1. Columns are summed in order.
template <MatrixLike G, class S = ScalarOf<G>>
Activation<S> repeat_backward(const G& gradient, Index rows, Index cols) {
  const ActivationView<S> g(gradient);
  Activation<S> partial(g.rows(), cols);
  if (cols == g.cols()) {
    partial = g;
  } else {
    partial.setZero();
    for (Index t = 0; t < g.cols(); ++t) partial.col(0) += g.col(t);
  }
  if (rows == g.rows()) return partial;
  Activation<S> sums(1, cols);
  for (Index t = 0; t < cols; ++t)
    sums(0, t) = detail::sum_of<S>(g.rows(), [column = partial.col(t).data()](Index i) { return column[i]; });
  return sums;
}

/// The largest number of each column, and its row: the first of equal ones.
template <class S>
struct LargestNumbers {
  Activation<S> values;     ///< [1, T]
  std::vector<Index> rows;  ///< [T]
};

/// Largest number of each column of X [n, T]; NaN where one of them is. Throws ShapeError for n = 0.
template <MatrixLike X, class S = ScalarOf<X>>
LargestNumbers<S> largest_forward(const X& input) {
  const ActivationView<S> x(input);
  check<ShapeError>(x.rows() > 0, "max", "x is [", x.rows(), ", ", x.cols(), "]: of no numbers none is the largest");
  LargestNumbers<S> largest{Activation<S>(1, x.cols()), std::vector<Index>(static_cast<std::size_t>(x.cols()))};
  for (Index t = 0; t < x.cols(); ++t) {
    Index best = 0;
    for (Index i = 1; i < x.rows(); ++i)
      if (x(i, t) > x(best, t) || is_nan(x(i, t))) best = i;
    largest.values(0, t) = x(best, t);
    largest.rows[static_cast<std::size_t>(t)] = best;
  }
  return largest;
}

/// dX [n, T] of largest_forward for G [1, T]: g at the number that was taken, else 0.
template <MatrixLike G, class S = ScalarOf<G>>
Activation<S> largest_backward(const G& g, const std::vector<Index>& rows, Index n) {
  Activation<S> dx = Activation<S>::Zero(n, g.cols());
  for (Index t = 0; t < g.cols(); ++t) dx(rows[static_cast<std::size_t>(t)], t) = g(0, t);
  return dx;
}

}  // namespace lowrank::inline LOWRANK_ABI
