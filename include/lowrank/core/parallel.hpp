#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Threads that a parallel loop may use: OpenMP's setting (OMP_NUM_THREADS), 1 where the library is compiled without OpenMP.
int thread_count();
/// Sets the number of threads for the calling thread's loops; no effect without OpenMP.
void set_thread_count(int threads);

namespace detail {
/// Calls piece(body, i) for each i in [0, count) on up to thread_count() threads.
void run_pieces(Index count, void (*piece)(const void* body, Index i), const void* body);
}  // namespace detail

/// Calls body(i) for each i in [0, count), each once, in any order, on any thread.
///
/// Threads take the next index from a shared counter, so one that loses its core delays a single piece, not a share of the whole.
/// Pieces must not depend on each other; then the result is the same for any number of threads. The first exception is rethrown
/// after the loop. A loop inside a loop, or beside another caller's, runs on the calling thread. Cost: about 1 µs to enter.
template <class Body>
void parallel_for(Index count, const Body& body) {
  detail::run_pieces(
      count, [](const void* context, Index i) { (*static_cast<const Body*>(context))(i); }, std::addressof(body));
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

#if !defined(LOWRANK_COMPILED)
#include <lowrank/core/parallel.inl>
#endif
