#pragma once

/// The instruction sets that have kernels, and which of them this processor has.

#include <lowrank/kernels/target/table.hpp>

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

}  // namespace detail

inline bool is_available(Target target) {
  static const bool available[] = {detail::is_available(Target::scalar), detail::is_available(Target::avx2),
                                   detail::is_available(Target::avx512), detail::is_available(Target::avx512bf16),
                                   detail::is_available(Target::neon)};
  return available[static_cast<int>(target)];
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
