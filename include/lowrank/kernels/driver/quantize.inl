#pragma once

/// The kernels that quantize, of every target.

#include <string_view>

#include <lowrank/kernels/target/quantize_avx512.hpp>
#include <lowrank/kernels/format/quantize_scalar.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels::detail {

LOWRANK_INLINE const QuantizeKernels& quantize_kernels_of([[maybe_unused]] std::string_view target) {
#if defined(__x86_64__)
  if (target == "avx512" || target == "avx512bf16") return avx512::quantize_kernels;
  if (target == "avx2") return avx2::quantize_kernels;
#endif
  return scalar::quantize_kernels;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels::detail
