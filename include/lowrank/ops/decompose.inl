#pragma once

#include <algorithm>
#include <utility>

#include <lowrank/core/random.hpp>
#include <lowrank/ops/bidiagonal_svd.hpp>
#include <lowrank/ops/householder.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE void check_decomposable(const char* operation, const Eigen::MatrixXd& m) {
  check<ShapeError>(m.rows() > 0 && m.cols() > 0, operation, "the matrix is [", m.rows(), ", ", m.cols(),
                    "]; it must have a row and a column");
  check<ValueError>(detail::all_finite(m), operation, "the matrix [", m.rows(), ", ", m.cols(), "] holds numbers that are not finite");
}

LOWRANK_INLINE Eigen::MatrixXd thin_product(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  Eigen::MatrixXd product = Eigen::MatrixXd::Zero(a.rows(), b.cols());
  for (Index j = 0; j < b.cols(); ++j) {
    Eigen::Map<Eigen::VectorXd> sum(product.data() + j * a.rows(), a.rows());
    for (Index k = 0; k < a.cols(); ++k) sum += b(k, j) * Eigen::Map<const Eigen::VectorXd>(a.data() + k * a.rows(), a.rows());
  }
  return product;
}

}  // namespace detail

LOWRANK_INLINE Qr thin_qr(const Eigen::MatrixXd& m) {
  detail::check_decomposable("thin_qr", m);
  const detail::HouseholderQr qr(m);
  const Index k = qr.r().rows();
  return {qr.times(Eigen::MatrixXd::Identity(k, k)), qr.r()};
}

LOWRANK_INLINE Svd thin_svd(const Eigen::MatrixXd& m) {
  detail::check_decomposable("thin_svd", m);
  if (m.cols() > m.rows()) {
    Svd transposed = thin_svd(m.transpose());
    return {std::move(transposed.v), std::move(transposed.s), std::move(transposed.u)};
  }
  if (2 * m.rows() <= 3 * m.cols()) return detail::bidiagonal_svd(m);
  const detail::HouseholderQr qr(m);
  Svd inner = detail::bidiagonal_svd(qr.r());
  return {qr.times(inner.u), std::move(inner.s), std::move(inner.v)};
}

LOWRANK_INLINE Svd product_svd(const Eigen::MatrixXd& b, const Eigen::MatrixXd& a) {
  check<ShapeError>(b.cols() == a.rows(), "product_svd", "b is [", b.rows(), ", ", b.cols(), "] and a is [", a.rows(), ", ", a.cols(),
                    "]; b must be [out, r] and a [r, in]");
  detail::check_decomposable("product_svd", b);
  detail::check_decomposable("product_svd", a);
  const detail::HouseholderQr left(b), right(a.transpose());
  Svd small = thin_svd(detail::thin_product(left.r(), right.r().transpose()));
  return {left.times(small.u), std::move(small.s), right.times(small.v)};
}

LOWRANK_INLINE Svd product_svd(const Factors& factors) {
  return product_svd(factors.scale * factors.b.cast<double>(), factors.a.cast<double>());
}

LOWRANK_INLINE Svd randomized_svd(const WeightView& w, Index rank, const RandomizedSvdOptions& options) {
  const Index least = std::min(w.rows(), w.cols());
  check<ValueError>(rank > 0 && rank <= least, "randomized_svd", "rank = ", rank, " for a [", w.rows(), ", ", w.cols(),
                    "] matrix; it must lie in [1, ", least, ']');
  check<ValueError>(options.oversampling >= 0 && options.power_iterations >= 0, "randomized_svd", "oversampling = ", options.oversampling,
                    ", power_iterations = ", options.power_iterations, "; neither may be negative");
  const auto basis = [](const Activation<float>& y) -> Activation<float> { return thin_qr(y.cast<double>()).q.cast<float>(); };
  Activation<float> sample(w.cols(), std::min(least, rank + options.oversampling));  // [in, k]
  Random random(options.seed, 0, Role::sketch);
  for (Index i = 0; i < sample.size(); ++i) sample.data()[i] = random.normal();
  Activation<float> q = basis(multiply(w, sample));  // [out, k]
  for (Index i = 0; i < options.power_iterations; ++i) q = basis(multiply(w, basis(multiply_transposed(w, q))));
  const Svd small = thin_svd(multiply_transposed(w, q).cast<double>());  // Wᵀ Q = V s U'ᵀ   [in, k]
  return Svd{detail::thin_product(q.cast<double>(), small.v), small.s, small.u}.leading(rank);
}

LOWRANK_INLINE Svd leading_svd(const Weight<float>& w, Index rank, std::uint64_t seed) {
  constexpr Index exact = 512;
  const Index least = std::min(w.rows(), w.cols());
  if (least <= exact || 2 * rank >= least) return thin_svd(w.cast<double>()).leading(rank);
  return randomized_svd(DenseSource<float>(w.data(), w.rows(), w.cols()), rank,
                        {.oversampling = rank / 2 + 16, .power_iterations = 4, .seed = seed});
}

}  // namespace lowrank::inline LOWRANK_ABI
