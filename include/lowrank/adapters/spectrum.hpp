#pragma once

#include <string>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/ops/factors.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The factors of a module's update, its scale times a weight.
Factors factors_of(const ModuleTensors& module, double weight = 1);

/// Singular values of s B A, falling; min(r, in, out) of them. Cost: O((in + out) r²).
Eigen::VectorXd spectrum(const ModuleTensors& module);

/// The smallest rank whose best approximation keeps that share of the energy ‖M‖² = Σ sᵢ²; 0 for a matrix of zeros.
///
/// `total` is Σ sᵢ² where not all singular values are given. Throws ValueError for a share outside (0, 1].
Index rank_for_energy(const Eigen::VectorXd& s, double share, double total = -1);

/// How many directions an update really uses: exp of the entropy of p = s / Σ s. Between 1 (one direction) and the rank (all alike); 0 for
/// zeros. Roy and Vetterli 2007, "The effective rank".
double effective_rank(const Eigen::VectorXd& s);

/// What a layer's spectrum says about its rank.
struct RankAdvice {
  double norm = 0;                              ///< ‖s B A‖
  double effective = 0;                         ///< effective_rank
  Index rank_90 = 0, rank_95 = 0, rank_99 = 0;  ///< ranks that keep these shares of the energy, in percent
};

/// `RankAdvice: norm 1.2, effective rank 3.4; ranks 2, 3 and 6 keep 90, 95 and 99 % of the energy`.
inline std::string describe(const RankAdvice& advice) {
  return concat("RankAdvice: norm ", advice.norm, ", effective rank ", advice.effective, "; ranks ", advice.rank_90, ", ", advice.rank_95,
                " and ", advice.rank_99, " keep 90, 95 and 99 % of the energy");
}

/// What the singular values s, largest first, say of the rank that their matrix needs.
RankAdvice rank_advice(const Eigen::VectorXd& s);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/spectrum.inl>
#endif
