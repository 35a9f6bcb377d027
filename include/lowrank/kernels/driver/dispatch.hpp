#pragma once

/// Which target runs, and how large the caches are.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <unistd.h>

#include <lowrank/error.hpp>
#include <lowrank/kernels/target/target.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {

const KernelTable& table_of(Target target);

/// The richest target there is, or the one that LOWRANK_TARGET names.
inline Target find_target() {
  const char* wanted = std::getenv("LOWRANK_TARGET");
  Target best = Target::scalar;
  for (Target target : targets) {
    if (!kernels::is_available(target)) continue;
    if (wanted != nullptr && std::string_view(wanted) == table_of(target).name) return target;
    best = target;
  }
  check<ValueError>(wanted == nullptr || *wanted == '\0', "target", "LOWRANK_TARGET=", wanted == nullptr ? "" : wanted,
                    " is unknown or not supported by this processor; leave it unset, or choose scalar or at most ", table_of(best).name);
  return best;
}

inline std::atomic<const KernelTable*>& current_slot() {
  static std::atomic<const KernelTable*> slot{&table_of(find_target())};
  return slot;
}

}  // namespace detail

/// The kernels in use; throws ValueError when LOWRANK_TARGET names none that this processor has.
inline const KernelTable& current_table() { return *detail::current_slot().load(std::memory_order_relaxed); }
inline const char* target_name() { return current_table().name; }

/// Chooses the target of all products from now on, in every thread; for tests and measurements.
inline void set_target(Target target) {
  check<ValueError>(is_available(target), "set_target", "this processor has no ", detail::table_of(target).name, " instructions");
  detail::current_slot().store(&detail::table_of(target), std::memory_order_relaxed);
}

/// Bytes of the caches that blocking is derived from; common sizes where the system does not tell.
struct CacheSizes {
  Index l1 = 32 << 10, l2 = 512 << 10;
};
inline const CacheSizes& cache_sizes() {
  static const CacheSizes sizes = [] {
    CacheSizes found;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    if (const long l1 = ::sysconf(_SC_LEVEL1_DCACHE_SIZE); l1 > 0) found.l1 = l1;
    if (const long l2 = ::sysconf(_SC_LEVEL2_CACHE_SIZE); l2 > 0) found.l2 = l2;
#endif
    return found;
  }();
  return sizes;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels

#if !defined(LOWRANK_COMPILED)
#include <lowrank/kernels/driver/dispatch.inl>
#endif
