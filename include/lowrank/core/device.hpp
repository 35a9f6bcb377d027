#pragma once

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Tags that say where an array lives and an operation runs: here on the processor,
struct Cpu {};
/// and here on an NVIDIA GPU.
struct Cuda {};

}  // namespace lowrank::inline LOWRANK_ABI
