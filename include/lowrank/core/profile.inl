#pragma once

#include <chrono>
#include <utility>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A thread's phase and what it has spent in each. Registered once and never freed, as threads may outlive a profile.
class PhaseClock {
 public:
  using Time = std::chrono::steady_clock;

  static double now() { return std::chrono::duration<double>(Time::now().time_since_epoch()).count(); }

  static PhaseClock& of_thread() {
    thread_local PhaseClock& clock = *new PhaseClock;
    return clock;
  }

  Phase phase() const { return phase_; }
  /// Ends the current phase now, and begins another; gives the one that ended.
  Phase enter(Phase next) {
    const auto now = Time::now();
    add(now - since_);
    since_ = now;
    return std::exchange(phase_, next);
  }
  /// Forgets what was counted by any thread; this one begins with Phase::other.
  void restart() {
    for (PhaseClock* clock = newest().load(); clock != nullptr; clock = clock->older_)
      for (auto& spent : clock->spent_) spent.store(0);
    phase_ = Phase::other;
    since_ = Time::now();
  }
  /// What all threads have spent, up to the ends of their latest phases.
  static PhaseSeconds sum() {
    PhaseSeconds seconds{};
    for (PhaseClock* clock = newest().load(); clock != nullptr; clock = clock->older_)
      for (std::size_t i = 0; i < seconds.size(); ++i)
        seconds[i] += std::chrono::duration<double>(Time::duration(clock->spent_[i].load())).count();
    return seconds;
  }

 private:
  PhaseClock() : older_(newest().load()) {
    while (!newest().compare_exchange_weak(older_, this)) {
    }
  }
  static std::atomic<PhaseClock*>& newest() {
    static std::atomic<PhaseClock*> value{nullptr};
    return value;
  }
  void add(Time::duration spent) {
    auto& sum = spent_[static_cast<std::size_t>(phase_)];
    sum.store(sum.load(std::memory_order_relaxed) + spent.count(), std::memory_order_relaxed);  // no other thread writes
  }

  Phase phase_ = Phase::waiting;
  Time::time_point since_ = Time::now();
  std::array<std::atomic<Time::rep>, static_cast<std::size_t>(Phase::count)> spent_{};
  PhaseClock* older_;
};

}  // namespace detail

LOWRANK_INLINE void PhaseScope::enter(Phase phase) {
  auto& clock = detail::PhaseClock::of_thread();
  if (clock.phase() == phase || (clock.phase() == Phase::attention && phase != Phase::waiting)) return;
  outer_ = clock.enter(phase);
  is_inside_ = true;
}
LOWRANK_INLINE void PhaseScope::leave() { detail::PhaseClock::of_thread().enter(outer_); }
LOWRANK_INLINE Phase PhaseScope::of_thread() { return detail::PhaseClock::of_thread().phase(); }

LOWRANK_INLINE Profile::Profile() : start_(detail::PhaseClock::now()) {
  detail::PhaseClock::of_thread().restart();
  detail::profile_is_on.store(true);
}

LOWRANK_INLINE PhaseSeconds Profile::seconds(int threads) const {
  detail::PhaseClock::of_thread().enter(Phase::other);
  PhaseSeconds result = detail::PhaseClock::sum();
  double& waiting = result[static_cast<std::size_t>(Phase::waiting)];
  waiting = (detail::PhaseClock::now() - start_) * threads;
  for (std::size_t i = 0; i < result.size(); ++i)
    if (&result[i] != &waiting) waiting -= result[i];
  return result;
}

}  // namespace lowrank::inline LOWRANK_ABI
