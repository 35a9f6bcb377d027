#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Where a run stands: `warmup` steps of linear rise from 0, then the fall to 0 at `steps`.
struct ScheduleOptions {
  Index steps;
  Index warmup = 0;
};

namespace detail {
inline double warmup_share(Index step, const ScheduleOptions& options) {
  return static_cast<double>(step) / static_cast<double>(std::max<Index>(1, options.warmup));
}
inline double decay_steps(const ScheduleOptions& options) {
  return static_cast<double>(std::max<Index>(1, options.steps - options.warmup));
}
}  // namespace detail

/// Multiplier in [0, 1] of the learning rate for step 0, 1, …: linear rise, then linear fall to 0.
///
///   optimizer.set_learning_rate(2e-4 * linear_schedule(step, {.steps = 1000, .warmup = 50}));
inline double linear_schedule(Index step, const ScheduleOptions& options) {
  if (step < options.warmup) return detail::warmup_share(step, options);
  return std::clamp(static_cast<double>(options.steps - step) / detail::decay_steps(options), 0.0, 1.0);
}

/// The same with half a cosine as the fall: (1 + cos(π progress)) / 2. Loshchilov and Hutter 2017, one cycle.
inline double cosine_schedule(Index step, const ScheduleOptions& options) {
  if (step < options.warmup) return detail::warmup_share(step, options);
  const double progress = std::min(1.0, static_cast<double>(step - options.warmup) / detail::decay_steps(options));
  return 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace lowrank::inline LOWRANK_ABI
