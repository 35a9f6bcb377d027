#pragma once

/// The kernels of every target.

#include <lowrank/kernels/target/avx2_few_int8.hpp>
#include <lowrank/kernels/target/avx512_few.hpp>
#include <lowrank/kernels/target/avx512bf16_few.hpp>
#include <lowrank/kernels/target/neon_few_int8.hpp>
#include <lowrank/kernels/target/scalar.hpp>
#include <lowrank/kernels/target/target.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels::detail {

LOWRANK_INLINE const KernelTable& table_of([[maybe_unused]] Target target) {
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

}  // namespace lowrank::inline LOWRANK_ABI::kernels::detail
