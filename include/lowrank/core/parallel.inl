#pragma once

#include <lowrank/core/workers.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE int thread_count() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

LOWRANK_INLINE void set_thread_count([[maybe_unused]] int threads) {
#if defined(_OPENMP)
  omp_set_num_threads(threads > 0 ? threads : 1);
#endif
}

namespace detail {

LOWRANK_INLINE bool in_parallel_loop() {
#if defined(_OPENMP)
  return Workers::inside() || omp_in_parallel();
#else
  return Workers::inside();
#endif
}

LOWRANK_INLINE void run_pieces(Index count, void (*piece)(const void* body, Index i), const void* body) {
  const int threads = thread_count();
  if (count > 1 && threads > 1 && !in_parallel_loop() && Workers::instance().run(count, threads, piece, body)) return;
  for (Index i = 0; i < count; ++i) piece(body, i);
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
