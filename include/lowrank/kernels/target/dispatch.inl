#pragma once

/// The list of targets: a new one is a file of its own, included and named here.

#include <atomic>
#include <cstdlib>
#include <string_view>

#include <lowrank/core/platform.hpp>
#include <lowrank/error.hpp>
#include <lowrank/kernels/target/scalar.hpp>
#if defined(__x86_64__)
#include <lowrank/kernels/target/amx.hpp>
#include <lowrank/kernels/target/avx2.hpp>
#include <lowrank/kernels/target/avx512.hpp>
#include <lowrank/kernels/target/avx512bf16.hpp>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <lowrank/kernels/target/neon.hpp>
#include <lowrank/kernels/target/neonbf16.hpp>
#include <lowrank/kernels/target/neondot.hpp>
#endif

namespace lowrank::inline LOWRANK_ABI::kernels {

LOWRANK_INLINE std::span<const Target* const> targets() {
  static constexpr const Target* all[] = {
    &scalar::target,
#if defined(__x86_64__)
    &avx2::target,
    &avx512::target,
    &avx512bf16::target,
    &amx::target,
#elif defined(__aarch64__) && defined(__ARM_NEON)
    &neon::target,
    &neondot::target,
    &neonbf16::target,
#endif
  };
  return all;
}

namespace detail {

/// The richest target there is, or the one that LOWRANK_TARGET names.
LOWRANK_INLINE const Target* find_target() {
  const char* wanted = std::getenv("LOWRANK_TARGET");
  const Target* best = nullptr;
  for (const Target* target : targets()) {
    if (!target->is_available()) continue;
    if (wanted != nullptr && std::string_view(wanted) == target->name) return target;
    best = target;
  }
  check<ValueError>(wanted == nullptr || *wanted == '\0', "target", "LOWRANK_TARGET=", wanted == nullptr ? "" : wanted,
                    " is unknown or not supported by this processor; leave it unset, or choose scalar or at most ", best->name);
  return best;
}

LOWRANK_INLINE std::atomic<const Target*>& current_slot() {
  static std::atomic<const Target*> slot{find_target()};
  return slot;
}

}  // namespace detail

LOWRANK_INLINE const Target& current_target() { return *detail::current_slot().load(std::memory_order_relaxed); }

LOWRANK_INLINE void set_target(const Target& target) {
  check<ValueError>(target.is_available(), "set_target", "this processor has no ", target.name, " instructions");
  detail::current_slot().store(&target, std::memory_order_relaxed);
}

LOWRANK_INLINE const CacheSizes& cache_sizes() {
  static const CacheSizes sizes = [] {
    CacheSizes found;
    if (const long l1 = platform::cache_bytes(1); l1 > 0) found.l1 = l1;
    if (const long l2 = platform::cache_bytes(2); l2 > 0) found.l2 = l2;
    return found;
  }();
  return sizes;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
