#pragma once

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include <lowrank/adapters/initialize.hpp>
#include <lowrank/ops/decompose.hpp>

/// EVA: A begins as the directions in which a layer's inputs vary most; B = 0, so the base stays. Paischer et al. 2024, "Parameter
/// efficient fine-tuning via explained variance adaptation".

namespace lowrank::inline LOWRANK_ABI {

/// The leading left singular vectors of X = [X₁ X₂ …] [in, all tokens], batch by batch (Ross et al. 2008, without the mean): what is kept
/// of the past is U diag(s), which has the same U and s as the past itself, and [U diag(s), Xᵢ] those of past and present.
class IncrementalDirections {
 public:
  /// Keeps `kept` directions, a few more than are needed, since each truncation loses something.
  explicit IncrementalDirections(Index in = 0, Index kept = 0) : kept_(kept), factor_(in, 0) {}

  /// Takes X [in, T] in; 128 tokens at a time, as the cost of a token grows with their number. Throws ShapeError, ValueError.
  void add(const Activation<float>& x) {
    constexpr Index chunk = 128;
    check<ShapeError>(x.rows() == factor_.rows(), "eva", "x is [", x.rows(), ", ", x.cols(), "] but the layer's inputs have ",
                      factor_.rows(), " rows");
    for (Index at = 0; at < x.cols(); at += chunk) add_chunk(x.middleCols(at, std::min(chunk, x.cols() - at)).cast<double>());
  }

  /// Directions [in, k] with orthonormal columns, the most important first.
  const Eigen::MatrixXd& directions() const { return directions_; }
  /// Shares of ‖X‖² that lie in each of them.
  Eigen::VectorXd shares() const { return energy_ > 0 ? Eigen::VectorXd(s_.cwiseAbs2() / energy_) : Eigen::VectorXd::Zero(s_.size()); }

 private:
  void add_chunk(const Eigen::MatrixXd& x) {
    energy_ += x.squaredNorm();
    Eigen::MatrixXd both(factor_.rows(), factor_.cols() + x.cols());
    both << factor_, x;
    const Svd svd = thin_svd(both).leading(kept_);
    directions_ = svd.u;
    s_ = svd.s;
    factor_ = svd.u * svd.s.asDiagonal();
  }

  Index kept_;
  double energy_ = 0;
  Eigen::MatrixXd factor_, directions_;
  Eigen::VectorXd s_;
};

/// A [r, in] = the r leading directions as rows, B [out, r] = 0. Throws ValueError where fewer were seen.
inline InitialUpdate init_eva(const IncrementalDirections& inputs, Index out, Index rank) {
  const Eigen::MatrixXd& v = inputs.directions();
  check<ValueError>(rank > 0 && rank <= v.cols(), "init_eva", "rank = ", rank, " but ", v.cols(),
                    " directions of the inputs are known; give more tokens than the rank");
  return {v.leftCols(rank).transpose().cast<float>(), Weight<float>::Zero(out, rank)};
}

/// Ranks of layers under one budget: the directions with the largest shares over all layers get them, at least 1 and at most `most` a
/// layer.
///
/// `shares[i]` are the falling shares of layer i. The sum is `budget` unless the bounds forbid it. Keep each layer's scale: multiply its
/// alpha by new rank / old rank. Throws ValueError for a budget below one a layer.
inline std::vector<Index> redistribute_ranks(const std::vector<Eigen::VectorXd>& shares, Index budget, Index most) {
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
