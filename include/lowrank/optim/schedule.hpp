#pragma once

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Where a run stands: `warmup` steps of linear rise from 0, then the fall to 0 at `steps`.
struct ScheduleOptions {
  Index steps;
  Index warmup = 0;
};

/// Multiplier in [0, 1] of the learning rate for step 0, 1, …: linear rise, then linear fall to 0.
///
///   optimizer.set_learning_rate(2e-4 * linear_schedule(step, {.steps = 1000, .warmup = 50}));
double linear_schedule(Index step, const ScheduleOptions& options);

/// The same with half a cosine as the fall: (1 + cos(π progress)) / 2. Loshchilov and Hutter 2017, one cycle.
double cosine_schedule(Index step, const ScheduleOptions& options);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/schedule.inl>
#endif
