#pragma once

#include <cmath>

#include <lowrank/ops/decompose.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE Factors factors_of(const ModuleTensors& module, double weight) {
  return {to_weight(module.a()), to_weight(module.b()), weight * module.scale};
}

LOWRANK_INLINE Eigen::VectorXd spectrum(const ModuleTensors& module) { return product_svd(factors_of(module)).s; }

LOWRANK_INLINE Index rank_for_energy(const Eigen::VectorXd& s, double share, double total) {
  check<ValueError>(is_finite(share) && share > 0 && share <= 1, "rank_for_energy", "share = ", share, "; it must lie in (0, 1]");
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

LOWRANK_INLINE double effective_rank(const Eigen::VectorXd& s) {
  const double sum = s.sum();
  if (!(sum > 0)) return 0;
  double entropy = 0;
  for (Index i = 0; i < s.size(); ++i) {
    const double p = s[i] / sum;
    if (p > 0) entropy -= p * std::log(p);
  }
  return std::exp(entropy);
}

LOWRANK_INLINE RankAdvice rank_advice(const Eigen::VectorXd& s) {
  return {s.norm(), effective_rank(s), rank_for_energy(s, 0.90), rank_for_energy(s, 0.95), rank_for_energy(s, 0.99)};
}

}  // namespace lowrank::inline LOWRANK_ABI
