#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/error.hpp>
#include <lowrank/ops/factors.hpp>
#include <lowrank/ops/householder.hpp>

/// The SVD by way of a bidiagonal matrix: M = U B Vᵀ by reflections from both sides, then B becomes diagonal by the QR algorithm, whose
/// rotations turn the columns of U and V. Golub and Kahan 1965; without a shift, Demmel and Kahan 1990.

namespace lowrank::inline LOWRANK_ABI::detail {

/// A sweep turns columns (first, first + 1), (first + 1, first + 2), … one after the other.
struct Rotation {
  double cosine, sine;
};
struct Sweep {
  Index first;
  std::vector<Rotation> rotations;
};

/// Turns the columns of q by all sweeps, eight rows at a time: they stay in the first cache, and the column that two rotations share
/// stays in registers.
inline void rotate_columns(Eigen::MatrixXd& q, const std::vector<Sweep>& sweeps) {
  using Rows = Eigen::Array<double, 8, 1>;
  std::vector<double> packed(static_cast<std::size_t>(8 * q.cols()));
  const auto column = [&](Index j) { return Eigen::Map<Rows>(packed.data() + 8 * j); };
  for (Index row = 0; row < q.rows(); row += 8) {
    const Index rows = std::min<Index>(8, q.rows() - row);
    for (Index j = 0; j < q.cols(); ++j) std::copy_n(q.data() + j * q.rows() + row, rows, packed.data() + 8 * j);
    for (const Sweep& sweep : sweeps) {
      Rows left = column(sweep.first);
      Index j = sweep.first;
      for (const auto& [c, s] : sweep.rotations) {
        const Rows right = column(j + 1);
        column(j) = c * left + s * right;
        left = c * right - s * left;
        ++j;
      }
      column(j) = left;
    }
    for (Index j = 0; j < q.cols(); ++j) std::copy_n(packed.data() + 8 * j, rows, q.data() + j * q.rows() + row);
  }
}

/// M = U B Vᵀ: B [n, n] has the diagonal d and e above it; U [rows, n], V [n, n] have orthonormal columns. For rows >= cols = n.
struct Bidiagonal {
  Eigen::MatrixXd u, v;
  std::vector<double> d, e;
};

inline Bidiagonal bidiagonalize(Eigen::MatrixXd m) {
  const Index rows = m.rows(), n = m.cols();
  Bidiagonal b{Eigen::MatrixXd::Identity(rows, n), Eigen::MatrixXd::Identity(n, n), {}, {}};
  Eigen::MatrixXd from_right = Eigen::MatrixXd::Zero(n, n);
  Eigen::VectorXd sum(rows);
  for (Index k = 0; k < n; ++k) {
    double* column = m.data() + k * rows + k;  // rows k and on
    b.d.push_back(make_reflection(column, rows - k));
    if (k + 1 == n) break;
    double* v = from_right.data() + k * n;
    for (Index j = k + 1; j < n; ++j) {
      reflect(column, m.data() + j * rows + k, rows - k);
      v[j] = m(k, j);
    }
    b.e.push_back(make_reflection(v + k + 1, n - k - 1));
    const auto below = [&](Index j) { return Eigen::Map<Eigen::VectorXd>(m.data() + j * rows + k + 1, rows - k - 1); };
    Eigen::Map<Eigen::VectorXd> product(sum.data(), rows - k - 1);  // M v, then M −= (M v) vᵀ
    product.setZero();
    for (Index j = k + 1; j < n; ++j) product += v[j] * below(j);
    for (Index j = k + 1; j < n; ++j) below(j) -= v[j] * product;
  }
  reflect_all(m, 0, b.u);
  reflect_all(from_right, 1, b.v);
  return b;
}

/// √(f² + g²) for numbers whose squares do not overflow, the nearest number in all but 2 of 1000 cases: Borges 2019, "An improved
/// algorithm for hypot(a, b)". std::hypot is each C library's own: musl's, which WebAssembly has, misses the nearest in 1 of 8, and the
/// singular vectors of many rotations are up to ten times less orthonormal.
inline double length_of(double f, double g) {
  const double x = std::max(std::abs(f), std::abs(g)), y = std::min(std::abs(f), std::abs(g));
  if (y == 0) return x;
  if (x < 0x1p-480) return length_of(x * 0x1p600, y * 0x1p600) / 0x1p600;  // the squares would lose their digits
  const double h = std::sqrt(x * x + y * y);
  const bool is_flat = h > 2 * y;
  const double d = h - (is_flat ? x : y);
  const double excess =  // h² − x² − y²
      is_flat ? 2 * d * (x - 2 * y) + ((4 * d - y) * y + d * d) : x * (2 * d - x) + (d - 2 * (x - y)) * d;
  return h - excess / (2 * h);
}

/// The QR algorithm on a bidiagonal matrix.
class BidiagonalIteration {
 public:
  explicit BidiagonalIteration(Bidiagonal b) : b_(std::move(b)) {}

  /// Until B is diagonal; throws ValueError after more sweeps than any matrix needs.
  Bidiagonal run() && {
    const Index n = static_cast<Index>(b_.d.size());
    Index left = 40 * n;
    for (Index last = n - 1; last > 0;) {
      if (negligible(last - 1)) {
        e(--last) = 0;
        continue;
      }
      Index first = last - 1;
      while (first > 0 && !negligible(first - 1)) --first;
      if (first > 0) e(first - 1) = 0;
      check<ValueError>(left-- > 0, "thin_svd", "the iteration did not converge for ", n, " singular values");
      sweep(first, last);
      if (stored_ > 1 << 14) rotate();
    }
    rotate();
    return std::move(b_);
  }

 private:
  double& d(Index i) { return b_.d[static_cast<std::size_t>(i)]; }
  double& e(Index i) { return b_.e[static_cast<std::size_t>(i)]; }

  bool negligible(Index i) {
    constexpr double smallest = 1e-290;  // of elements near 1: where both neighbours are zero
    return std::abs(e(i)) <= std::numeric_limits<double>::epsilon() * (std::abs(d(i)) + std::abs(d(i + 1))) + smallest;
  }

  /// The smaller singular value of the last [[a, c], [0, b]]: |a b| over the larger one. 0 where that changes nothing or d has a zero.
  double shift(Index first, Index last) {
    constexpr double epsilon = std::numeric_limits<double>::epsilon();
    double least = std::abs(d(last)), most = least;
    for (Index i = first; i < last; ++i) {
      least = std::min(least, std::abs(d(i)));
      most = std::max({most, std::abs(d(i)), std::abs(e(i))});
    }
    if (least <= epsilon * most) return 0;
    const double a = d(last - 1), b = d(last), c = e(last - 1);
    const double value = 2 * std::abs(a * b) / (length_of(a + b, c) + length_of(a - b, c)), ratio = value / d(first);
    return ratio * ratio < epsilon ? 0 : value;
  }

  void sweep(Index first, Index last) {
    from_left_.push_back({first, {}});
    from_right_.push_back({first, {}});
    const double by = shift(first, last);
    if (by == 0)
      sweep_without_shift(first, last);
    else
      sweep_with_shift(first, last, by);
    stored_ += last - first;
  }

  /// One step of QR on Bᵀ B − shift² I, done on B itself: a rotation of two columns lets a bulge appear below the diagonal, a rotation of
  /// two rows moves it above, and so on down.
  void sweep_with_shift(Index first, Index last, double shift) {
    double f = (std::abs(d(first)) - shift) * (std::copysign(1.0, d(first)) + shift / d(first)), g = e(first), length;
    for (Index i = first; i < last; ++i) {
      const Rotation columns = rotation(f, g, length);
      if (i > first) e(i - 1) = length;
      f = columns.cosine * d(i) + columns.sine * e(i);
      e(i) = columns.cosine * e(i) - columns.sine * d(i);
      g = columns.sine * d(i + 1);
      d(i + 1) *= columns.cosine;
      const Rotation rows = rotation(f, g, d(i));
      f = rows.cosine * e(i) + rows.sine * d(i + 1);
      d(i + 1) = rows.cosine * d(i + 1) - rows.sine * e(i);
      if (i + 1 < last) {
        g = rows.sine * e(i + 1);
        e(i + 1) *= rows.cosine;
      }
      keep(columns, rows);
    }
    e(last - 1) = f;
  }

  /// The same for a shift of zero, where no subtraction loses digits of small values.
  void sweep_without_shift(Index first, Index last) {
    Rotation columns{1, 0}, rows{1, 0};
    double length;
    for (Index i = first; i < last; ++i) {
      columns = rotation(d(i) * columns.cosine, e(i), length);
      if (i > first) e(i - 1) = rows.sine * length;
      rows = rotation(rows.cosine * length, d(i + 1) * columns.sine, d(i));
      keep(columns, rows);
    }
    const double f = d(last) * columns.cosine;
    d(last) = f * rows.cosine;
    e(last - 1) = f * rows.sine;
  }

  /// cos · f + sin · g = length, cos · g − sin · f = 0.
  static Rotation rotation(double f, double g, double& length) {
    length = length_of(f, g);
    return length == 0 ? Rotation{1, 0} : Rotation{f / length, g / length};
  }

  void keep(Rotation columns, Rotation rows) {
    from_right_.back().rotations.push_back(columns);
    from_left_.back().rotations.push_back(rows);
  }

  void rotate() {
    rotate_columns(b_.u, from_left_);
    rotate_columns(b_.v, from_right_);
    from_left_.clear();
    from_right_.clear();
    stored_ = 0;
  }

  Bidiagonal b_;
  std::vector<Sweep> from_left_, from_right_;
  Index stored_ = 0;
};

/// The thin SVD of a matrix with at least as many rows as columns.
inline Svd bidiagonal_svd(const Eigen::MatrixXd& m) {
  const double scale = power_of_two_scale(m);
  const Bidiagonal b = BidiagonalIteration(bidiagonalize(m / scale)).run();
  std::vector<std::size_t> order(b.d.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return std::abs(b.d[i]) > std::abs(b.d[j]); });
  Svd svd{Eigen::MatrixXd(m.rows(), m.cols()), Eigen::VectorXd(m.cols()), Eigen::MatrixXd(m.cols(), m.cols())};
  for (Index j = 0; j < m.cols(); ++j) {
    const std::size_t from = order[static_cast<std::size_t>(j)];
    const Index column = static_cast<Index>(from);
    svd.s[j] = std::abs(b.d[from]) * scale;
    std::copy_n(b.u.data() + column * m.rows(), m.rows(), svd.u.data() + j * m.rows());
    std::transform(b.v.data() + column * m.cols(), b.v.data() + (column + 1) * m.cols(), svd.v.data() + j * m.cols(),
                   [&](double x) { return b.d[from] < 0 ? -x : x; });
  }
  return svd;
}

}  // namespace lowrank::inline LOWRANK_ABI::detail
