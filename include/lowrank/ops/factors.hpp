#pragma once

#include <algorithm>

#include <lowrank/core/matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// M = Q R: M [rows, cols], k = min(rows, cols), Q [rows, k] with orthonormal columns, R [k, cols] upper triangular.
struct Qr {
  Eigen::MatrixXd q, r;
};

/// M = U diag(s) Vᵀ: U [rows, k] and V [cols, k] with orthonormal columns, s [k] falling, none negative.
struct Svd {
  Eigen::MatrixXd u;
  Eigen::VectorXd s;
  Eigen::MatrixXd v;

  /// The k largest singular values and their vectors (all where there are fewer): of all matrices of rank k, U diag(s) Vᵀ is then the
  /// nearest to M (Eckart and Young 1936).
  Svd leading(Index k) const& {
    k = std::min(k, s.size());
    return {u.leftCols(k), s.head(k), v.leftCols(k)};
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
