#pragma once

#include <vector>

#include <lowrank/adapters/initialize.hpp>

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
  void add(const Activation<float>& x);

  /// Directions [in, k] with orthonormal columns, the most important first.
  const Eigen::MatrixXd& directions() const { return directions_; }
  /// Shares of ‖X‖² that lie in each of them.
  Eigen::VectorXd shares() const { return energy_ > 0 ? Eigen::VectorXd(s_.cwiseAbs2() / energy_) : Eigen::VectorXd::Zero(s_.size()); }

 private:
  void add_chunk(const Eigen::MatrixXd& x);

  Index kept_;
  double energy_ = 0;
  Eigen::MatrixXd factor_, directions_;
  Eigen::VectorXd s_;
};

/// A [r, in] = the r leading directions as rows, B [out, r] = 0. Throws ValueError where fewer were seen.
Factors init_eva(const IncrementalDirections& inputs, Index out, Index rank);

/// Ranks of layers under one budget: the directions with the largest shares over all layers get them, at least 1 and at most `most` a
/// layer.
///
/// `shares[i]` are the falling shares of layer i. The sum is `budget` unless the bounds forbid it. Keep each layer's scale: multiply its
/// alpha by new rank / old rank. Throws ValueError for a budget below one a layer.
std::vector<Index> redistribute_ranks(const std::vector<Eigen::VectorXd>& shares, Index budget, Index most);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/eva.inl>
#endif
