#pragma once

#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/kernels/target/target.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Writes element (row + i, col + j) of a weight to out[i · stride + j], i < count, j < length, with the target's instructions.
void decode(const Target& target, const WeightView& weight, Index row, Index count, Index col, Index length, float* out, Index stride);

}  // namespace lowrank::inline LOWRANK_ABI::kernels

#if !defined(LOWRANK_COMPILED)
#include <lowrank/kernels/driver/decode.inl>
#endif
