#pragma once

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How long a run is: `warmup` steps of linear rise, the first of which moves by 1 / warmup of the rate and the last by all of it, then the
/// fall to 0 at `steps`.
struct ScheduleOptions {
  Index steps;
  Index warmup = 0;
};

/// Multiplier in [0, 1] of the learning rate for step 0, 1, …: the rise alone.
double constant_schedule(Index step, const ScheduleOptions& options);

/// Linear rise, then linear fall to 0.
///
///   optimizer.set_learning_rate(2e-4 * linear_schedule(step, {.steps = 1000, .warmup = 50}));
double linear_schedule(Index step, const ScheduleOptions& options);

/// The same with half a cosine as the fall: (1 + cos(π progress)) / 2. Loshchilov and Hutter 2017, one cycle.
double cosine_schedule(Index step, const ScheduleOptions& options);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/schedule.inl>
#endif
