#pragma once

#include <algorithm>
#include <span>

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

/// A matrix of low rank, s B A: A [r, in], B [out, r].
struct Factors {
  Weight<float> a, b;
  double scale = 1;
};

/// U diag(σ) Vᵀ as s B A, its singular values shared evenly, so that both train at one rate: B = U √(σ/s), A = √(σ/s) Vᵀ.
Factors shared_evenly(const Svd& svd, double scale = 1);

/// Σ sᵢ Bᵢ Aᵢ as one: the Bᵢ side by side, the Aᵢ below each other. Where all sᵢ agree but for signs, their magnitude is the scale and no
/// number is rounded; else it is multiplied into B. Throws ShapeError for products of different shapes.
Factors stack(std::span<const Factors> parts);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/factors.inl>
#endif
