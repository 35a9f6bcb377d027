#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/random.hpp>

namespace ops_test {

using lowrank::Index;

/// Numbers in [-1, 1); each call site names its own stream.
template <class Matrix>
Matrix random_matrix(Index rows, Index cols, std::uint64_t stream) {
  lowrank::Random random(1, stream);
  Matrix m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<typename Matrix::Scalar>(random.uniform(-1, 1));
  return m;
}

template <class A, class B>
double largest_difference(const A& a, const B& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return std::numeric_limits<double>::infinity();
  return a.size() == 0 ? 0.0 : static_cast<double>((a - b).cwiseAbs().maxCoeff());
}

/// Largest difference of dx from central differences of loss(), which reads x, over the largest difference quotient (or 1).
template <class X, class Gradient, class Loss>
double gradient_error(X& x, const Gradient& dx, const Loss& loss) {
  if (dx.rows() != x.rows() || dx.cols() != x.cols()) return std::numeric_limits<double>::infinity();
  double worst = 0, largest = 1;
  for (Index j = 0; j < x.cols(); ++j) {
    for (Index i = 0; i < x.rows(); ++i) {
      const double saved = x(i, j), step = 6e-6 * std::max(1.0, std::abs(saved));
      x(i, j) = saved + step;
      const double above = loss();
      x(i, j) = saved - step;
      const double below = loss();
      x(i, j) = saved;
      const double quotient = (above - below) / (2 * step);
      largest = std::max(largest, std::abs(quotient));
      worst = std::max(worst, std::abs(quotient - dx(i, j)));
    }
  }
  return worst / largest;
}

/// A central difference is right to about epsilon^(2/3) times the loss; losses here are below 100.
inline const double gradient_tolerance = 200 * std::pow(std::numeric_limits<double>::epsilon(), 2.0 / 3.0);

/// True if the matrix that run() gives has the same bits with 1, 2 and 3 threads.
template <class Run>
bool same_for_any_thread_count(const Run& run) {
  const int before = lowrank::thread_count();
  lowrank::set_thread_count(1);
  const auto expected = run();
  bool same = true;
  for (int threads : {2, 3}) {
    lowrank::set_thread_count(threads);
    const auto result = run();
    const auto bytes = static_cast<std::size_t>(expected.size()) * sizeof(*expected.data());
    same = same && result.size() == expected.size() && std::memcmp(result.data(), expected.data(), bytes) == 0;
  }
  lowrank::set_thread_count(before);
  return same;
}

}  // namespace ops_test
