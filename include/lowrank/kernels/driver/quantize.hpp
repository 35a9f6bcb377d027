#pragma once

/// The kernels that quantize and that write whole matrices, for the target in use.

#include <string_view>

#include <lowrank/kernels/driver/dispatch.hpp>
#include <lowrank/kernels/format/quantize_scalar.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {
/// Those of a KernelTable's name.
const QuantizeKernels& quantize_kernels_of(std::string_view target);
}  // namespace detail

inline const QuantizeKernels& quantize_kernels() { return detail::quantize_kernels_of(target_name()); }

}  // namespace lowrank::inline LOWRANK_ABI::kernels

#if !defined(LOWRANK_COMPILED)
#include <lowrank/kernels/driver/quantize.inl>
#endif
