#pragma once

#include <atomic>
#include <exception>

#include <lowrank/core/types.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace lowrank::inline LOWRANK_ABI {

/// Threads that a parallel loop may use: OpenMP's setting, 1 without OpenMP.
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

/// Calls body(i) for each i in [0, count), each once, in any order, on any thread.
///
/// Threads take the next index from a shared counter, so one that loses its core delays a single piece, not a share of the whole.
/// Pieces must not depend on each other; then the result is the same for any number of threads. The first exception is rethrown
/// after the loop. Cost: about 1 µs to enter, an atomic increment a piece.
template <class Body>
void parallel_for(Index count, const Body& body) {
#if defined(_OPENMP)
  if (count > 1 && thread_count() > 1 && !omp_in_parallel()) {
    std::atomic<Index> next{0};
    std::exception_ptr failure;
#pragma omp parallel default(shared)
    {
      try {
        for (Index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
      } catch (...) {
        next.store(count, std::memory_order_relaxed);
#pragma omp critical(lowrank_failure)
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
#endif
  for (Index i = 0; i < count; ++i) body(i);
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
