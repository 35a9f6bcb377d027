#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>

#include <lowrank/core/types.hpp>
#include <lowrank/core/workers.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace lowrank::inline LOWRANK_ABI {

/// Threads that a parallel loop may use: OpenMP's setting (OMP_NUM_THREADS), 1 where the program is compiled without OpenMP.
inline int thread_count() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// Sets the number of threads for the calling thread's loops; no effect without OpenMP.
inline void set_thread_count([[maybe_unused]] int threads) {
#if defined(_OPENMP)
  omp_set_num_threads(threads > 0 ? threads : 1);
#endif
}

namespace detail {
inline bool in_parallel_loop() {
#if defined(_OPENMP)
  return Workers::inside() || omp_in_parallel();
#else
  return Workers::inside();
#endif
}
}  // namespace detail

/// Calls body(i) for each i in [0, count), each once, in any order, on any thread.
///
/// Threads take the next index from a shared counter, so one that loses its core delays a single piece, not a share of the whole.
/// Pieces must not depend on each other; then the result is the same for any number of threads. The first exception is rethrown
/// after the loop. A loop inside a loop, or beside another caller's, runs on the calling thread. Cost: about 1 µs to enter.
template <class Body>
void parallel_for(Index count, const Body& body) {
  const int threads = thread_count();
  if (count > 1 && threads > 1 && !detail::in_parallel_loop()) {
    const auto piece = [](const void* context, Index i) { (*static_cast<const Body*>(context))(i); };
    if (detail::Workers::instance().run(count, threads, piece, std::addressof(body))) return;
  }
  for (Index i = 0; i < count; ++i) body(i);
}

/// Calls body(begin, end) for ranges of at most grain indices that cover [0, count), so that a thread's ranges follow each other.
///
/// Each thread goes through a share of its own, and then helps with the others'. Memory that is read from end to end thus comes in as few
/// streams as there are threads, which is what the processor's prefetching is made for. Ranges begin at multiples of grain.
template <class Body>
void parallel_shares(Index count, Index grain, const Body& body) {
  constexpr Index most = 64;
  const Index pieces = ceil_div(count, grain), shares = std::min<Index>({thread_count(), pieces, most});
  std::array<std::atomic<Index>, most> next;
  for (Index s = 0; s < shares; ++s) next[static_cast<std::size_t>(s)].store(pieces * s / shares, std::memory_order_relaxed);
  parallel_for(shares, [&](Index own) {
    for (Index turn = 0; turn < shares; ++turn) {
      const Index share = (own + turn) % shares, end = pieces * (share + 1) / shares;
      auto& counter = next[static_cast<std::size_t>(share)];
      for (Index piece; (piece = counter.fetch_add(1, std::memory_order_relaxed)) < end;)
        body(piece * grain, std::min((piece + 1) * grain, count));
    }
  });
}

/// Calls body(begin, end) for consecutive ranges of at most grain indices that cover [0, count).
template <class Body>
void parallel_ranges(Index count, Index grain, const Body& body) {
  parallel_for(ceil_div(count, grain), [&](Index piece) {
    const Index begin = piece * grain, end = begin + grain < count ? begin + grain : count;
    body(begin, end);
  });
}

}  // namespace lowrank::inline LOWRANK_ABI
