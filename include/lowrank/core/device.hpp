#pragma once

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Tags that say where an array lives and an operation runs.
struct Cpu {};
struct Cuda {};

}  // namespace lowrank::inline LOWRANK_ABI
