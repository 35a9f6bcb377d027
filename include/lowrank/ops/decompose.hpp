#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/random.hpp>
#include <lowrank/ops/bidiagonal_svd.hpp>
#include <lowrank/ops/factors.hpp>
#include <lowrank/ops/householder.hpp>
#include <lowrank/ops/product.hpp>

/// QR and singular value decompositions: Eigen's take a compiler ten times as long as all the rest of the library.
///
/// They compute in double: factors are thin, so that it costs little, and small singular values keep their digits. Where a large weight is
/// multiplied (randomized_svd) the products alone are float, as the weight is: their rounding, 1e-7 of its norm, is far below what a
/// truncation leaves out, and a product of the library's kernels is ten times as fast. Each runs on one thread, so that results do not
/// depend on the number of threads; decompose several layers in a parallel_for.

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline void check_decomposable(const char* operation, const Eigen::MatrixXd& m) {
  check<ShapeError>(m.rows() > 0 && m.cols() > 0, operation, "the matrix is [", m.rows(), ", ", m.cols(),
                    "]; it must have a row and a column");
  check<ValueError>(m.allFinite(), operation, "the matrix [", m.rows(), ", ", m.cols(), "] holds numbers that are not finite");
}

/// A B. Thin matrices only: it reads A once a column.
inline Eigen::MatrixXd thin_product(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  Eigen::MatrixXd product = Eigen::MatrixXd::Zero(a.rows(), b.cols());
  for (Index j = 0; j < b.cols(); ++j) {
    Eigen::Map<Eigen::VectorXd> sum(product.data() + j * a.rows(), a.rows());
    for (Index k = 0; k < a.cols(); ++k) sum += b(k, j) * Eigen::Map<const Eigen::VectorXd>(a.data() + k * a.rows(), a.rows());
  }
  return product;
}

}  // namespace detail

/// The thin QR decomposition by Householder reflections. Cost: 4 rows cols² FLOPs for a tall matrix. Throws ShapeError for an empty
/// matrix, ValueError for numbers that are not finite.
inline Qr thin_qr(const Eigen::MatrixXd& m) {
  detail::check_decomposable("thin_qr", m);
  const detail::HouseholderQr qr(m);
  const Index k = qr.r().rows();
  return {qr.times(Eigen::MatrixXd::Identity(k, k)), qr.r()};
}

/// The thin SVD by bidiagonalization and the QR algorithm; tall matrices go through a QR decomposition first, M = Q R, R = U' s Vᵀ.
///
/// Singular values and products of the factors are right to a few ε |M|. Cost: about 20 long short² FLOPs. Throws as thin_qr.
inline Svd thin_svd(const Eigen::MatrixXd& m) {
  detail::check_decomposable("thin_svd", m);
  if (m.cols() > m.rows()) {
    Svd turned = thin_svd(m.transpose());
    return {std::move(turned.v), std::move(turned.s), std::move(turned.u)};
  }
  if (2 * m.rows() <= 3 * m.cols()) return detail::bidiagonal_svd(m);
  const detail::HouseholderQr qr(m);
  Svd inner = detail::bidiagonal_svd(qr.r());
  return {qr.times(inner.u), std::move(inner.s), std::move(inner.v)};
}

/// The SVD of B A without the product: B = Q₁ R₁, Aᵀ = Q₂ R₂, and the small R₁ R₂ᵀ = U' s V'ᵀ gives U = Q₁ U', V = Q₂ V'.
///
/// B [out, R], A [R, in]; at most R singular values. Cost: O((out + in) R²), where the dense product alone is out in R. Throws ShapeError,
/// ValueError.
inline Svd product_svd(const Eigen::MatrixXd& b, const Eigen::MatrixXd& a) {
  check<ShapeError>(b.cols() == a.rows(), "product_svd", "b is [", b.rows(), ", ", b.cols(), "] and a is [", a.rows(), ", ", a.cols(),
                    "]; b must be [out, r] and a [r, in]");
  detail::check_decomposable("product_svd", b);
  detail::check_decomposable("product_svd", a);
  const detail::HouseholderQr left(b), right(a.transpose());
  Svd small = thin_svd(detail::thin_product(left.r(), right.r().transpose()));
  return {left.times(small.u), std::move(small.s), right.times(small.v)};
}

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
template <Source W>
Svd randomized_svd(const W& w, Index rank, const RandomizedSvdOptions& options = {}) {
  const Index least = std::min<Index>(w.rows(), w.cols());
  check<ValueError>(rank > 0 && rank <= least, "randomized_svd", "rank = ", rank, " for a [", w.rows(), ", ", w.cols(),
                    "] matrix; it must lie in [1, ", least, ']');
  check<ValueError>(options.oversampling >= 0 && options.power_iterations >= 0, "randomized_svd", "oversampling = ", options.oversampling,
                    ", power_iterations = ", options.power_iterations, "; neither may be negative");
  const auto basis = [](const Activation<float>& y) -> Activation<float> { return thin_qr(y.cast<double>()).q.cast<float>(); };
  Activation<float> sample(w.cols(), std::min(least, rank + options.oversampling));  // [in, k]
  Random random(options.seed);
  for (Index i = 0; i < sample.size(); ++i) sample.data()[i] = random.normal();
  Activation<float> q = basis(multiply(w, sample));  // [out, k]
  for (Index i = 0; i < options.power_iterations; ++i) q = basis(multiply(w, basis(multiply_transposed(w, q))));
  const Svd small = thin_svd(multiply_transposed(w, q).template cast<double>());  // Wᵀ Q = V s U'ᵀ   [in, k]
  return Svd{detail::thin_product(q.cast<double>(), small.v), small.s, small.u}.leading(rank);
}

/// The leading singular triplets of a dense matrix: exact up to 512 rows or columns, by randomized_svd with more samples beyond, where
/// the exact one takes minutes and, for the few largest, is no better than that to a percent of what is left out.
inline Svd leading_svd(const Weight<float>& w, Index rank, std::uint64_t seed = 0) {
  constexpr Index exact = 512;
  const Index least = std::min(w.rows(), w.cols());
  if (least <= exact || 2 * rank >= least) return thin_svd(w.cast<double>()).leading(rank);
  return randomized_svd(DenseSource<float>(w.data(), w.rows(), w.cols()), rank,
                        {.oversampling = rank / 2 + 16, .power_iterations = 4, .seed = seed});
}

}  // namespace lowrank::inline LOWRANK_ABI
