#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
LOWRANK_INLINE double warmup_share(Index step, const ScheduleOptions& options) {
  return static_cast<double>(step + 1) / static_cast<double>(std::max<Index>(1, options.warmup));  // step 0 reads a batch, so it moves
}
LOWRANK_INLINE double decay_steps(const ScheduleOptions& options) {
  return static_cast<double>(std::max<Index>(1, options.steps - options.warmup));
}
}  // namespace detail

LOWRANK_INLINE double constant_schedule(Index step, const ScheduleOptions& options) {
  return step < options.warmup ? detail::warmup_share(step, options) : 1.0;
}

LOWRANK_INLINE double linear_schedule(Index step, const ScheduleOptions& options) {
  if (step < options.warmup) return detail::warmup_share(step, options);
  return std::clamp(static_cast<double>(options.steps - step) / detail::decay_steps(options), 0.0, 1.0);
}

LOWRANK_INLINE double cosine_schedule(Index step, const ScheduleOptions& options) {
  if (step < options.warmup) return detail::warmup_share(step, options);
  const double progress = std::min(1.0, static_cast<double>(step - options.warmup) / detail::decay_steps(options));
  return 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace lowrank::inline LOWRANK_ABI
