#pragma once

/// The kernels that quantize and that write whole matrices, for the target in use.

#include <string_view>

#include <lowrank/kernels/driver/dispatch.hpp>
#include <lowrank/kernels/format/quantize_scalar.hpp>
#if !defined(LOWRANK_SEPARATE_KERNELS)
#include <lowrank/kernels/target/quantize_tables.hpp>
#endif

namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {
#if defined(LOWRANK_SEPARATE_KERNELS)
const QuantizeKernels& quantize_kernels_of(std::string_view target);  // in the one unit that includes separate.hpp
#endif
}  // namespace detail

inline const QuantizeKernels& quantize_kernels() { return detail::quantize_kernels_of(target_name()); }

}  // namespace lowrank::inline LOWRANK_ABI::kernels
