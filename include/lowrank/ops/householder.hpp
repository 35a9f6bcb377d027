#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/matrix.hpp>

/// Householder reflections H = I − v vᵀ with |v|² = 2, or v = 0 where there is nothing to reflect. Golub and Van Loan 2013, chapter 5.
///
/// A matrix holds many, reflection i in column i from row i + below on. They are applied to one column at a time, in groups that stay in
/// the cache: no product of matrices is needed, which would take a compiler longer than all of this.

namespace lowrank::inline LOWRANK_ABI::detail {

/// y −= (v · y) v.
inline void reflect(const double* v, double* y, Index n) {
  const Eigen::Map<const Eigen::VectorXd> direction(v, n);
  Eigen::Map<Eigen::VectorXd> column(y, n);
  column -= direction.dot(column) * direction;
}

/// Replaces x by the v whose reflection gives H x = (β, 0, 0, …), and returns β.
inline double make_reflection(double* x, Index n) {
  Eigen::Map<Eigen::VectorXd> v(x, n);
  const double first = v[0], norm = std::sqrt(v.squaredNorm());
  constexpr double nothing = 1e-140;  // of a largest element near 1; below, the squares would lose their digits
  if (norm < nothing || norm <= std::abs(first)) {
    v.setZero();
    return first;
  }
  const double beta = first > 0 ? -norm : norm;  // so that first − β cancels nothing
  v[0] -= beta;
  v *= 1 / std::sqrt(norm * (norm + std::abs(first)));
  return beta;
}

constexpr Index reflection_group = 32;

/// Y = H₀ H₁ … Y. Rows of a column below its last number that is not zero need no reflection, which spares half of an identity's.
inline void reflect_all(const Eigen::MatrixXd& v, Index below, Eigen::MatrixXd& y) {
  const Index count = std::min(v.cols(), std::max<Index>(v.rows() - below, 0));
  for (Index end = count; end > 0; end -= std::min(end, reflection_group)) {
    for (Index j = 0; j < y.cols(); ++j) {
      double* column = y.data() + j * y.rows();
      Index height = y.rows();
      while (height > 0 && column[height - 1] == 0) --height;
      for (Index i = std::min(end, height - below) - 1; i >= std::max<Index>(end - reflection_group, 0); --i)
        reflect(v.data() + i * v.rows() + i + below, column + i + below, y.rows() - i - below);
    }
  }
}

/// The power of two next to the largest element, 1 for zeros: divided by it nothing overflows and nothing is rounded.
inline double power_of_two_scale(const Eigen::MatrixXd& m) {
  double largest = 0;
  for (Index i = 0; i < m.size(); ++i) largest = std::max(largest, std::abs(m.data()[i]));
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, exponent - 1);
}

/// M = Q R with Q left as reflections: times(X) is Q X at the cost of reflecting X.
class HouseholderQr {
 public:
  explicit HouseholderQr(const Eigen::MatrixXd& m) : scale_(power_of_two_scale(m)), v_(m / scale_) {
    const Index rows = m.rows(), k = std::min(rows, m.cols());
    r_.setZero(k, m.cols());
    for (Index begin = 0; begin < k; begin += reflection_group) {
      const Index end = std::min(begin + reflection_group, k);
      for (Index j = begin; j < m.cols(); ++j) {
        double* column = v_.data() + j * rows;
        for (Index i = begin; i < std::min(end, j); ++i) {
          reflect(v_.data() + i * rows + i, column + i, rows - i);
          r_(i, j) = column[i] * scale_;
        }
        if (j < end) r_(j, j) = make_reflection(column + j, rows - j) * scale_;
      }
    }
  }

  /// R [k, cols], k = min(rows, cols).
  const Eigen::MatrixXd& r() const { return r_; }

  /// Q X [rows, n] for X [k, n].
  Eigen::MatrixXd times(const Eigen::MatrixXd& x) const {
    Eigen::MatrixXd y = Eigen::MatrixXd::Zero(v_.rows(), x.cols());
    for (Index j = 0; j < x.cols(); ++j) std::copy_n(x.data() + j * x.rows(), x.rows(), y.data() + j * y.rows());
    reflect_all(v_, 0, y);
    return y;
  }

 private:
  double scale_;
  Eigen::MatrixXd v_, r_;
};

}  // namespace lowrank::inline LOWRANK_ABI::detail
