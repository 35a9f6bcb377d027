#pragma once

#include <cstdint>

#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/ops/factors.hpp>

/// QR and singular value decompositions: Eigen's take a compiler ten times as long as all the rest of the library.
///
/// They compute in double: factors are thin, so that it costs little, and small singular values keep their digits. Where a large weight is
/// multiplied (randomized_svd) the products alone are float, as the weight is: their rounding, 1e-7 of its norm, is far below what a
/// truncation leaves out, and a product of the library's kernels is ten times as fast. Each runs on one thread, so that results do not
/// depend on the number of threads; decompose several layers in a parallel_for.

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A B. Thin matrices only: it reads A once a column.
Eigen::MatrixXd thin_product(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b);

}  // namespace detail

/// The thin QR decomposition by Householder reflections. Cost: 4 rows cols² FLOPs for a tall matrix. Throws ShapeError for an empty
/// matrix, ValueError for numbers that are not finite.
Qr thin_qr(const Eigen::MatrixXd& m);

/// The thin SVD by bidiagonalization and the QR algorithm; tall matrices go through a QR decomposition first, M = Q R, R = U' s Vᵀ.
///
/// Singular values and products of the factors are right to a few ε |M|. Cost: about 20 long short² FLOPs. Throws as thin_qr.
Svd thin_svd(const Eigen::MatrixXd& m);

/// The SVD of B A without the product: B = Q₁ R₁, Aᵀ = Q₂ R₂, and the small R₁ R₂ᵀ = U' s V'ᵀ gives U = Q₁ U', V = Q₂ V'.
///
/// B [out, R], A [R, in]; at most R singular values. Cost: O((out + in) R²), where the dense product alone is out in R. Throws ShapeError,
/// ValueError.
Svd product_svd(const Eigen::MatrixXd& b, const Eigen::MatrixXd& a);
/// The same of s B A.
Svd product_svd(const Factors& factors);

/// How a randomized SVD samples; the defaults find singular values that fall slowly to a few percent of the best truncation.
struct RandomizedSvdOptions {
  Index oversampling = 8;      ///< directions beyond the rank
  Index power_iterations = 2;  ///< each multiplies with W Wᵀ once more, so that large singular values stand out
  std::uint64_t seed = 0;
};

/// The leading singular triplets of a weight in any format, from products with thin matrices alone: the weight is never dense.
///
/// Y = (W Wᵀ)^q W Ω for a Gaussian Ω [in, k], k = rank + oversampling; Q = qr(Y); the SVD of the small Qᵀ W gives the rest. Every product
/// is orthonormalized before the next, without which only the largest direction would survive rounding. Cost: 2 + 2 q products of the
/// weight with k columns. Halko, Martinsson, Tropp 2011, "Finding structure with randomness", algorithms 4.4 and 5.1. Throws ValueError.
Svd randomized_svd(const WeightView& w, Index rank, const RandomizedSvdOptions& options = {});

/// The leading singular triplets of a dense matrix: exact up to 512 rows or columns, by randomized_svd with more samples beyond, where
/// the exact one takes minutes and, for the few largest, is no better than that to a percent of what is left out.
Svd leading_svd(const Weight<float>& w, Index rank, std::uint64_t seed = 0);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/decompose.inl>
#endif
