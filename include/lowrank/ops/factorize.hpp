#pragma once

#include <lowrank/error.hpp>
#include <lowrank/ops/factors.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#elif defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#endif
#include <Eigen/QR>
#include <Eigen/SVD>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#elif defined(__clang__)
#pragma clang diagnostic pop
#endif

/// What decompose.hpp takes from Eigen. It costs a compiler 15 seconds, so a program of many units may compile it in one: see separate.hpp.

namespace lowrank::inline LOWRANK_ABI::detail {

#if !defined(LOWRANK_SEPARATE_KERNELS)
inline Qr householder_qr(const Eigen::MatrixXd& m);
inline Svd divide_and_conquer_svd(const Eigen::MatrixXd& m);
#endif

/// The thin M = Q R of a matrix that is not empty.
Qr householder_qr(const Eigen::MatrixXd& m) {
  const Index k = std::min(m.rows(), m.cols());
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(m);
  return {qr.householderQ() * Eigen::MatrixXd::Identity(m.rows(), k), qr.matrixQR().topRows(k).triangularView<Eigen::Upper>()};
}

/// The thin SVD of a matrix with at least as many rows as columns.
Svd divide_and_conquer_svd(const Eigen::MatrixXd& m) {
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(m, Eigen::ComputeThinU | Eigen::ComputeThinV);
  check<ValueError>(svd.info() == Eigen::Success, "thin_svd", "the iteration did not converge for a [", m.rows(), ", ", m.cols(),
                    "] matrix");
  if (svd.singularValues().allFinite() && svd.matrixU().allFinite() && svd.matrixV().allFinite())
    return {svd.matrixU(), svd.singularValues(), svd.matrixV()};
  // Eigen 3.4.0 can divide by zero where singular values are equal, as in a matrix of two different rows; Jacobi's rotations never do.
  const Eigen::JacobiSVD<Eigen::MatrixXd> slow(m, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {slow.matrixU(), slow.singularValues(), slow.matrixV()};
}

}  // namespace lowrank::inline LOWRANK_ABI::detail
