#pragma once

#include <algorithm>
#include <tuple>
#include <utility>

#include <lowrank/ops/decompose.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void IncrementalDirections::add(const Activation<float>& x) {
  constexpr Index chunk = 128;
  check<ShapeError>(x.rows() == factor_.rows(), "eva", "x is [", x.rows(), ", ", x.cols(), "] but the layer's inputs have ", factor_.rows(),
                    " rows");
  for (Index at = 0; at < x.cols(); at += chunk) add_chunk(x.middleCols(at, std::min(chunk, x.cols() - at)).cast<double>());
}

LOWRANK_INLINE void IncrementalDirections::add_chunk(const Eigen::MatrixXd& x) {
  energy_ += x.squaredNorm();
  Eigen::MatrixXd both(factor_.rows(), factor_.cols() + x.cols());
  both << factor_, x;
  const Svd svd = thin_svd(both).leading(kept_);
  directions_ = svd.u;
  s_ = svd.s;
  factor_ = svd.u * svd.s.asDiagonal();
}

LOWRANK_INLINE Factors init_eva(const IncrementalDirections& inputs, Index out, Index rank) {
  const Eigen::MatrixXd& v = inputs.directions();
  check<ValueError>(rank > 0 && rank <= v.cols(), "init_eva", "rank = ", rank, " but ", v.cols(),
                    " directions of the inputs are known; give more tokens than the rank");
  return {v.leftCols(rank).transpose().cast<float>(), Weight<float>::Zero(out, rank)};
}

LOWRANK_INLINE std::vector<Index> redistribute_ranks(const std::vector<Eigen::VectorXd>& shares, Index budget, Index most) {
  const auto layers = static_cast<Index>(shares.size());
  check<ValueError>(budget >= layers && most > 0, "redistribute_ranks", "a budget of ", budget, " and at most ", most, " each for ", layers,
                    " layers; each needs at least 1");
  std::vector<Index> ranks(shares.size(), 1);
  std::vector<std::tuple<double, std::size_t, Index>> candidates;  // the first direction of each layer is in
  for (std::size_t i = 0; i < shares.size(); ++i)
    for (Index k = 1; k < std::min(most, shares[i].size()); ++k) candidates.emplace_back(-shares[i][k], i, k);
  std::sort(candidates.begin(), candidates.end());
  const auto taken = std::min(static_cast<std::size_t>(budget - layers), candidates.size());
  for (std::size_t c = 0; c < taken; ++c) ++ranks[std::get<1>(candidates[c])];
  return ranks;
}

}  // namespace lowrank::inline LOWRANK_ABI
