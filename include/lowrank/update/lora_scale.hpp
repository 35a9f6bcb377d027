#pragma once

#include <cmath>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The scale s of an update s·B·A: alpha / r, rank-stabilized alpha / √r (Hu et al. 2021; Kalajdzievski 2023).
inline double lora_scale(Index rank, double alpha, bool use_rslora) {
  const auto r = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r) : r);
}

}  // namespace lowrank::inline LOWRANK_ABI
