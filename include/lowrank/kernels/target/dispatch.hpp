#pragma once

/// The targets of this build, which of them runs, and how large the caches are.

#include <span>

#include <lowrank/kernels/target/target.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Every target that has been compiled, from the plainest to the richest; a processor need not have them all.
std::span<const Target* const> targets();

/// The target in use: the richest that the processor has, or the one that LOWRANK_TARGET names. Throws ValueError when that is none.
const Target& current_target();
inline const char* target_name() { return current_target().name; }

/// Chooses the target of all products from now on, in every thread; for tests and measurements. Throws ValueError if it cannot run.
void set_target(const Target& target);

/// Bytes of the caches that blocking is derived from; common sizes where the system does not tell.
struct CacheSizes {
  Index l1 = 32 << 10, l2 = 512 << 10;
};
const CacheSizes& cache_sizes();

}  // namespace lowrank::inline LOWRANK_ABI::kernels

#if !defined(LOWRANK_COMPILED)
#include <lowrank/kernels/target/dispatch.inl>
#endif
