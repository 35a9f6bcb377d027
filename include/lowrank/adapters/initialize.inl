#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <lowrank/product/multiply.hpp>
#include <lowrank/update/init.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE void check_initial(const char* operation, Index out, Index in, Index rank, double scale) {
  check<ValueError>(rank > 0 && rank <= std::min(out, in), operation, "rank = ", rank, " for a [", out, ", ", in,
                    "] weight; it must lie in [1, ", std::min(out, in), ']');
  check<ValueError>(is_finite(scale) && scale > 0, operation, "scale = ", scale, "; it must be positive");
}

LOWRANK_INLINE Weight<float> drawn_normal(Index rows, Index cols, const Random& random) {
  Weight<float> m(rows, cols);
  fill_normal(m, 1, random);
  return m;
}

LOWRANK_INLINE Weight<float> dense_copy(const WeightView& w) {
  Weight<float> dense(w.rows(), w.cols());
  w.decode(0, w.rows(), 0, w.cols(), dense.data(), w.cols());
  return dense;
}

LOWRANK_INLINE Weight<float> dense_product(const Factors& update) {
  Weight<float> product = Weight<float>::Zero(update.b.rows(), update.a.cols());
  accumulate_outer(product, update.b, update.a.transpose(), static_cast<float>(update.scale));
  return product;
}

}  // namespace detail

LOWRANK_INLINE Weight<float> residual_weight(const WeightView& w, const Factors& update) {
  Weight<float> base = detail::dense_copy(w);
  accumulate_outer(base, update.b, update.a.transpose(), -static_cast<float>(update.scale));  // B [out, r], A [r, in]
  return base;
}

LOWRANK_INLINE Factors to_plain_update(const Factors& initial, const Factors& trained) {
  return stack(std::array{trained, Factors{initial.a, initial.b, -initial.scale}});
}

LOWRANK_INLINE Factors init_pissa(const WeightView& w, Index rank, double scale) {
  detail::check_initial("init_pissa", w.rows(), w.cols(), rank, scale);
  return shared_evenly(thin_svd(detail::dense_copy(w).cast<double>()).leading(rank), scale);
}

LOWRANK_INLINE Factors init_pissa_fast(const WeightView& w, Index rank, double scale, const RandomizedSvdOptions& options) {
  detail::check_initial("init_pissa_fast", w.rows(), w.cols(), rank, scale);
  return shared_evenly(randomized_svd(w, rank, options), scale);
}

LOWRANK_INLINE Factors init_olora(const WeightView& w, Index rank, double scale) {
  detail::check_initial("init_olora", w.rows(), w.cols(), rank, scale);
  Weight<float> head(w.rows(), rank);
  w.decode(0, w.rows(), 0, rank, head.data(), rank);
  const Activation<float> q = thin_qr(head.cast<double>()).q.cast<float>();  // [out, r]
  return {multiply_transposed(w, q).transpose(), q, scale};                  // (Wᵀ Q)ᵀ   [r, in]
}

LOWRANK_INLINE Factors init_orthogonal(Index out, Index in, Index rank, std::uint64_t seed, std::uint64_t stream) {
  detail::check_initial("init_orthogonal", out, in, rank, 1);
  check<ValueError>(rank % 2 == 0, "init_orthogonal", "rank = ", rank, "; it must be even, as half of the directions go to A, half to B");
  const Index half = rank / 2;
  const Eigen::MatrixXd q = thin_qr(detail::drawn_normal(rank, rank, Random(seed, 3 * stream, Role::orthogonal)).cast<double>()).q;
  Eigen::MatrixXd even(half, rank), odd(half, rank);
  for (Index i = 0; i < half; ++i) even.row(i) = q.row(2 * i), odd.row(i) = q.row(2 * i + 1);
  const Weight<float> from = detail::drawn_normal(half, in, Random(seed, 3 * stream + 1, Role::orthogonal));
  const Weight<float> to = detail::drawn_normal(out, half, Random(seed, 3 * stream + 2, Role::orthogonal));
  return {detail::thin_product(from.transpose().cast<double>(), even / 10).transpose().cast<float>(),  // (N₁ᵀ Q_even)ᵀ   [r, in]
          detail::thin_product(to.cast<double>(), odd / 10).cast<float>()};                            // [out, r]
}

LOWRANK_INLINE Factors init_lora_ga(const Svd& gradient, Index rank, double scale, double stable_gamma) {
  const Index out = gradient.u.rows(), in = gradient.v.rows();
  detail::check_initial("init_lora_ga", out, in, rank, scale);
  check<ValueError>(2 * rank <= gradient.s.size(), "init_lora_ga", "rank = ", rank, " needs ", 2 * rank,
                    " singular directions of the gradient but ", gradient.s.size(), " are given; lower the rank");
  check<ValueError>(is_finite(stable_gamma) && stable_gamma > 0, "init_lora_ga", "stable_gamma = ", stable_gamma, "; it must be positive");
  const double size = std::pow(static_cast<double>(out), 0.25) / std::sqrt(stable_gamma);
  return {gradient.v.leftCols(rank).transpose().cast<float>(), (size * gradient.u.middleCols(rank, rank)).cast<float>(), scale};
}

}  // namespace lowrank::inline LOWRANK_ABI
