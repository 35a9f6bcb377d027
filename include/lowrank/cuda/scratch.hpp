#pragma once

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Scratch for partial sums; work is cut into no more pieces than it holds.
struct Scratch {
  float* data = nullptr;
  Index size = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
