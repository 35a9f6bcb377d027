#pragma once

#include <cmath>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/ops/decompose.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An update as two factors in double with nothing beside them: B [out, R], A [R, in], the scale inside B.
struct UpdateFactors {
  Eigen::MatrixXd b, a;
};

/// weight · s B A of a layer as factors.
inline UpdateFactors update_factors(const LoraTensors& layer, double weight = 1) {
  return {(weight * layer.scale) * to_weight(layer.b).cast<double>(), to_weight(layer.a).cast<double>()};
}

/// Singular values of s B A, falling; min(r, in, out) of them. Cost: O((in + out) r²).
inline Eigen::VectorXd spectrum(const LoraTensors& layer) {
  const UpdateFactors update = update_factors(layer);
  return product_svd(update.b, update.a).s;
}

/// The smallest rank whose best approximation keeps that share of the energy ‖M‖² = Σ sᵢ²; 0 for a matrix of zeros.
///
/// `total` is Σ sᵢ² where not all singular values are given. Throws ValueError for a share outside (0, 1].
inline Index rank_for_energy(const Eigen::VectorXd& s, double share, double total = -1) {
  check<ValueError>(share > 0 && share <= 1, "rank_for_energy", "share = ", share, "; it must lie in (0, 1]");
  if (total < 0) total = s.squaredNorm();
  // Sums of squares are known to some 1e-12: without this a share of 1 would ask for directions that are rounding alone.
  const double wanted = share * total * (1 - 1e-12);
  double kept = 0;
  for (Index k = 0; k < s.size(); ++k) {
    if (kept >= wanted) return k;
    kept += s[k] * s[k];
  }
  return s.size();
}

/// How many directions an update really uses: exp of the entropy of p = s / Σ s. Between 1 (one direction) and the rank (all alike); 0 for
/// zeros. Roy and Vetterli 2007, "The effective rank".
inline double effective_rank(const Eigen::VectorXd& s) {
  const double sum = s.sum();
  if (!(sum > 0)) return 0;
  double entropy = 0;
  for (Index i = 0; i < s.size(); ++i) {
    const double p = s[i] / sum;
    if (p > 0) entropy -= p * std::log(p);
  }
  return std::exp(entropy);
}

/// What a layer's spectrum says about its rank.
struct RankAdvice {
  double norm = 0;                              ///< ‖s B A‖
  double effective = 0;                         ///< effective_rank
  Index rank_90 = 0, rank_95 = 0, rank_99 = 0;  ///< ranks that keep these shares of the energy, in percent
};

/// What the singular values s, largest first, say of the rank that their matrix needs.
inline RankAdvice rank_advice(const Eigen::VectorXd& s) {
  return {s.norm(), effective_rank(s), rank_for_energy(s, 0.90), rank_for_energy(s, 0.95), rank_for_energy(s, 0.99)};
}

}  // namespace lowrank::inline LOWRANK_ABI
