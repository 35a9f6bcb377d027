#pragma once

/// Which target runs, and how large the caches are.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <unistd.h>

#include <lowrank/error.hpp>
#include <lowrank/kernels/avx2.hpp>
#include <lowrank/kernels/avx512_few.hpp>
#include <lowrank/kernels/avx512bf16_few.hpp>
#include <lowrank/kernels/neon_few_int8.hpp>
#include <lowrank/kernels/scalar.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Instruction sets with kernels of their own, from the plainest to the richest.
enum class Target { scalar, avx2, avx512, avx512bf16, neon };
inline constexpr Target targets[] = {Target::scalar, Target::avx2, Target::avx512, Target::avx512bf16, Target::neon};
inline constexpr const char* target_names[] = {"scalar", "avx2", "avx512", "avx512bf16", "neon"};

namespace detail {

/// Whether the processor has the instructions and the operating system saves their registers (libgcc asks XGETBV for both).
inline bool is_available(Target target) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (target) {
    case Target::scalar:
      return true;
    case Target::avx2:
      return avx2;
    case Target::avx512:
      return avx512;
    case Target::avx512bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    case Target::neon:
      return false;
  }
#elif defined(__aarch64__) && defined(__ARM_NEON)
  if (target == Target::neon) return true;
#endif
  return target == Target::scalar;
}

inline const KernelTable& table_of([[maybe_unused]] Target target) {
#if defined(__x86_64__)
  switch (target) {
    case Target::scalar:
    case Target::neon:
      break;
    case Target::avx2:
      return avx2::table;
    case Target::avx512:
      return avx512::table;
    case Target::avx512bf16:
      return avx512bf16::table;
  }
#elif defined(__aarch64__) && defined(__ARM_NEON)
  if (target == Target::neon) return neon::table;
#endif
  return scalar::table;
}

/// The richest target there is, or the one that LOWRANK_TARGET names.
inline Target find_target() {
  const char* wanted = std::getenv("LOWRANK_TARGET");
  Target best = Target::scalar;
  for (Target target : targets) {
    if (!is_available(target)) continue;
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

inline bool is_available(Target target) {
  static const bool available[] = {detail::is_available(Target::scalar), detail::is_available(Target::avx2),
                                   detail::is_available(Target::avx512), detail::is_available(Target::avx512bf16),
                                   detail::is_available(Target::neon)};
  return available[static_cast<int>(target)];
}

/// The kernels in use; throws ValueError when LOWRANK_TARGET names none that this processor has.
inline const KernelTable& current_table() { return *detail::current_slot().load(std::memory_order_relaxed); }
inline const char* target_name() { return current_table().name; }

/// Chooses the target of all products from now on, in every thread; for tests and measurements.
inline void set_target(Target target) {
  check<ValueError>(is_available(target), "set_target", "this processor has no ", target_names[static_cast<int>(target)], " instructions");
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
