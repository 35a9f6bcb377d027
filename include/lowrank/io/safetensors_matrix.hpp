#pragma once

#include <string_view>

#include <lowrank/io/safetensors.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI::safetensors {

/// A matrix [rows, cols] of a safetensors file where it lies: F32, F16, BF16 or F64. What bitsandbytes spreads over several tensors is
/// loaded by bitsandbytes::load_weight.
///
/// Throws FormatError "[operation] …" for another element type or number of dimensions, ShapeError when bytes and shape disagree.
AnyMatrix matrix(const Tensor& tensor, std::string_view operation = "safetensors");

}  // namespace lowrank::inline LOWRANK_ABI::safetensors

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/safetensors_matrix.inl>
#endif
