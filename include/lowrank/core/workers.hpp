#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include <lowrank/core/profile.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Tells the processor that this thread only waits.
inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("isb");  // waits some 10 ns; `yield` does nothing on most processors
#endif
}

/// Threads that help a caller with the pieces of one loop at a time.
///
/// The closing barrier of an OpenMP region waits for every thread of the team, so one that has lost its core to another process stalls the
/// loop for milliseconds even if it did nothing. Here the caller works too and waits for nothing but pieces that someone has begun: a
/// helper that sleeps is not missed. After a fork, when there are no helpers, the caller does it all.
class Workers {
 public:
  using Piece = void (*)(const void* body, Index i);

  /// The process has one set, never destroyed: threads may still look at it while the program ends.
  static Workers& instance() {
    static Workers* const workers = new Workers;
    return *workers;
  }

  /// Calls piece(body, i) for each i in [0, count), on up to `threads` threads. False, with nothing done, when the set is busy.
  bool run(Index count, int threads, Piece piece, const void* body) {
    if (count > max_count || !busy_.try_lock()) return false;
    const std::lock_guard guard(busy_, std::adopt_lock);
    start_helpers(threads - 1);
    piece_ = piece;
    body_ = body;
    count_ = count;
    phase_ = PhaseScope::current();
    finished_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    limit_.store(threads - 1, std::memory_order_relaxed);
    const std::uint64_t generation = (state_.load(std::memory_order_relaxed) >> 32) + 1;
    state_.store(generation << 32 | static_cast<std::uint64_t>(count), std::memory_order_seq_cst);
    wake_.fetch_add(1, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) wake_.notify_all();
    inside() = true;
    while (take_piece()) {
    }
    wait_for(count);
    inside() = false;
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::exchange(failure_, nullptr));
    return true;
  }

  /// Whether this thread is in a loop already; loops inside loops run on one thread.
  static bool& inside() {
    thread_local bool value = false;
    return value;
  }

 private:
  static constexpr Index max_count = 0x7fffffff;

  Workers() = default;

  /// state_ holds the number of the loop (upper half) and the pieces that nobody has begun (lower half); whoever lowers it has one.
  bool take_piece() {
    std::uint64_t state = state_.load(std::memory_order_acquire);
    do {
      if ((state & 0xffffffffu) == 0) return false;
    } while (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel, std::memory_order_acquire));
    // The loop cannot end before this piece does, so its description is safe to read from here on.
    const Index i = count_ - static_cast<Index>(state & 0xffffffffu);
    if (!failed_.load(std::memory_order_relaxed)) {
      try {
        const PhaseScope scope(phase_);
        piece_(body_, i);
      } catch (...) {
        const std::lock_guard guard(failure_lock_);
        if (!failure_) failure_ = std::current_exception();
        failed_.store(true, std::memory_order_relaxed);
      }
    }
    finished_.fetch_add(1, std::memory_order_acq_rel);
    return true;
  }

  /// Until all pieces are done.
  void wait_for(Index count) {
    const PhaseScope scope(Phase::waiting);
    for (int spins = 0; finished_.load(std::memory_order_acquire) < count; ++spins) spins < 512 ? pause() : std::this_thread::yield();
  }

  void start_helpers(int wanted) {
    for (; helpers_ < wanted; ++helpers_) {
      try {
        std::thread([this, id = helpers_] { help(id); }).detach();
      } catch (const std::system_error&) {
        return;  // no more threads are to be had; fewer do
      }
    }
  }

  [[noreturn]] void help(int id) {
    inside() = true;
    for (;;) {
      const std::uint32_t seen = wake_.load(std::memory_order_acquire);
      for (int spins = 0; spins < 1000; ++spins) {  // some 20 µs: the next loop is often near
        if (id < limit_.load(std::memory_order_relaxed) && take_piece()) spins = 0;
        pause();
      }
      asleep_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(seen, std::memory_order_seq_cst);
      asleep_.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  std::mutex busy_, failure_lock_;
  std::exception_ptr failure_;
  Piece piece_ = nullptr;
  const void* body_ = nullptr;
  Index count_ = 0;
  Phase phase_ = Phase::other;
  int helpers_ = 0;
  alignas(64) std::atomic<std::uint64_t> state_{0};
  alignas(64) std::atomic<Index> finished_{0};
  std::atomic<bool> failed_{false};
  std::atomic<int> limit_{0};
  alignas(64) std::atomic<std::uint32_t> wake_{0};
  std::atomic<int> asleep_{0};
};

}  // namespace lowrank::inline LOWRANK_ABI::detail
