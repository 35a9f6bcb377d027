#pragma once

/// The kernels that quantize and that write whole matrices, for the target in use.

#include <lowrank/kernels/dispatch.hpp>
#include <lowrank/kernels/quantize_avx512.hpp>
#include <lowrank/kernels/quantize_scalar.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

inline const QuantizeKernels& quantize_kernels() {
#if defined(__x86_64__)
  const KernelTable* const table = &current_table();
  if (table == &avx512::table || table == &avx512bf16::table) return avx512::quantize_kernels;
  if (table == &avx2::table) return avx2::quantize_kernels;
#endif
  return scalar::quantize_kernels;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
