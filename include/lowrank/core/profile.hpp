#pragma once

/// Where the time of a program's threads goes: seconds a phase, counted while a profile runs, nearly free while none does.

#include <array>
#include <atomic>
#include <cstddef>

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
/// Whether a profile runs.
inline std::atomic<bool> profile_is_on{false};
}  // namespace detail

/// The phase of this thread, and of the pieces of its parallel loops, until the end of the scope. Cost: two readings of a clock while a
/// profile runs, else of a flag.
class PhaseScope {
 public:
  explicit PhaseScope(Phase phase) {
    if (detail::profile_is_on.load(std::memory_order_relaxed)) enter(phase);
  }
  ~PhaseScope() {
    if (is_inside_) leave();
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

  /// The phase that a loop's pieces begin in.
  static Phase current() { return detail::profile_is_on.load(std::memory_order_relaxed) ? of_thread() : Phase::other; }

 private:
  void enter(Phase phase);
  void leave();
  static Phase of_thread();

  bool is_inside_ = false;
  Phase outer_ = Phase::other;
};

/// Counts from its construction on, on one thread at a time; phases of loops' helpers are counted with it.
///
///   Profile profile;
///   step();
///   PhaseSeconds seconds = profile.seconds(thread_count());
class Profile {
 public:
  Profile();
  ~Profile() { detail::profile_is_on.store(false); }
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// Since the construction: they add up to the wall time times the threads, of which what no phase has is Phase::waiting.
  PhaseSeconds seconds(int threads) const;

 private:
  double start_;  // seconds of a clock
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/core/profile.inl>
#endif
