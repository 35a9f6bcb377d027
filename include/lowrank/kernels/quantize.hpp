#pragma once

/// The kernels that quantize and that write whole matrices, for the target in use.

#include <string_view>

#include <lowrank/kernels/dispatch.hpp>
#include <lowrank/kernels/quantize_avx512.hpp>
#include <lowrank/kernels/quantize_scalar.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

inline const QuantizeKernels& quantize_kernels() {
#if defined(__x86_64__)
  const std::string_view target = target_name();
  if (target == "avx512" || target == "avx512bf16") return avx512::quantize_kernels;
  if (target == "avx2") return avx2::quantize_kernels;
#endif
  return scalar::quantize_kernels;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
