#pragma once

#include <lowrank/core/random.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE Activation<double> detail::gradcheck_weights(Index rows, Index cols) {
  Random random(20240229);
  return Activation<double>::NullaryExpr(rows, cols, [&] { return static_cast<double>(random.uniform(-1, 1)); });
}

}  // namespace lowrank::inline LOWRANK_ABI
