#pragma once

/// Where the time of a program's threads goes: seconds a phase, counted while a profile runs, nearly free while none does.

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <utility>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What a thread is doing. A phase within another one is counted apart, but for what attention does, which is all its own.
enum class Phase {
  other,      ///< on the thread that profiles, none of the others: element-wise operations, norms, bookkeeping
  packing,    ///< activations to panels
  decoding,   ///< weights to panels: codes to numbers, dense ones too
  product,    ///< micro-kernels, and products of few tokens, which decode as they read
  attention,  ///< scores, softmax, values, and their gradients
  loss,       ///< softmax of logits; their products are products
  optimizer,
  waiting,  ///< for other threads, or for work
  count
};

/// Seconds of all threads together, by Phase.
using PhaseSeconds = std::array<double, static_cast<std::size_t>(Phase::count)>;

namespace detail {

/// A thread's phase and what it has spent in each. Registered once and never freed, as threads may outlive a profile.
class PhaseClock {
 public:
  using Time = std::chrono::steady_clock;

  static std::atomic<bool>& is_on() {
    static std::atomic<bool> value{false};
    return value;
  }
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

/// The phase of this thread, and of the pieces of its parallel loops, until the end of the scope. Cost: two readings of a clock while a
/// profile runs, else of a flag.
class PhaseScope {
 public:
  explicit PhaseScope(Phase phase) {
    if (!detail::PhaseClock::is_on().load(std::memory_order_relaxed)) return;
    auto& clock = detail::PhaseClock::of_thread();
    if (clock.phase() == phase || (clock.phase() == Phase::attention && phase != Phase::waiting)) return;
    clock_ = &clock;
    outer_ = clock.enter(phase);
  }
  ~PhaseScope() {
    if (clock_) clock_->enter(outer_);
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

  /// The phase that a loop's pieces begin in.
  static Phase current() {
    return detail::PhaseClock::is_on().load(std::memory_order_relaxed) ? detail::PhaseClock::of_thread().phase() : Phase::other;
  }

 private:
  detail::PhaseClock* clock_ = nullptr;
  Phase outer_ = Phase::other;
};

/// Counts from its construction on, on one thread at a time; phases of loops' helpers are counted with it.
///
///   Profile profile;
///   step();
///   PhaseSeconds seconds = profile.seconds(thread_count());
class Profile {
 public:
  Profile() : start_(detail::PhaseClock::Time::now()) {
    detail::PhaseClock::of_thread().restart();
    detail::PhaseClock::is_on().store(true);
  }
  ~Profile() { detail::PhaseClock::is_on().store(false); }
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// Since the construction: they add up to the wall time times the threads, of which what no phase has is Phase::waiting.
  PhaseSeconds seconds(int threads) const {
    detail::PhaseClock::of_thread().enter(Phase::other);
    PhaseSeconds result = detail::PhaseClock::sum();
    double& waiting = result[static_cast<std::size_t>(Phase::waiting)];
    waiting = std::chrono::duration<double>(detail::PhaseClock::Time::now() - start_).count() * threads;
    for (std::size_t i = 0; i < result.size(); ++i)
      if (&result[i] != &waiting) waiting -= result[i];
    return result;
  }

 private:
  detail::PhaseClock::Time::time_point start_;
};

}  // namespace lowrank::inline LOWRANK_ABI
