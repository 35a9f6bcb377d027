#pragma once

#include <algorithm>

namespace lowrank::inline LOWRANK_ABI::kernels {

LOWRANK_INLINE void decode(const Target& target, const WeightView& weight, Index row, Index count, Index col, Index length, float* out,
                           Index stride) {
  using Kind = WeightView::Kind;
  const Kind kind = weight.kind();
  if (kind == Kind::blocks) return target.decode_blocks(weight.blocks(), row, count, col, length, out, stride);
  if (kind == Kind::fp64 || kind == Kind::other) return weight.decode(row, count, col, length, out, stride);
  for (Index i = 0; i < count; ++i, out += stride) {
    const Index at = (row + i) * weight.stride() + col;
    if (kind == Kind::fp32)
      std::copy_n(static_cast<const float*>(weight.data()) + at, length, out);
    else if (kind == Kind::bf16)
      target.widen_bfloat16(static_cast<const BFloat16*>(weight.data()) + at, length, out);
    else
      target.widen_half(static_cast<const Half*>(weight.data()) + at, length, out);
  }
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
