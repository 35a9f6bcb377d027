#pragma once

/// Advanced SIMD, which every aarch64 processor has: 4 floats a vector, panels of 8 rows and 12 tokens (24 sums, 2 vectors of rows, 3 of
/// tokens: 29 of the 32 registers).

#if defined(__aarch64__) && defined(__ARM_NEON)

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <arm_neon.h>

#include <lowrank/kernels/target/few.hpp>
#include <lowrank/kernels/target/scalar.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::neon {

namespace simd {  // what neondot and neonbf16 share
#include <lowrank/kernels/target/neon/floats.inl>
#include <lowrank/kernels/target/elementwise.inl>

#include <lowrank/kernels/target/neon/panels.inl>
#include <lowrank/kernels/target/multiply.inl>

#include <lowrank/kernels/target/neon/blocks.inl>
#include <lowrank/kernels/target/neon/few.inl>
}  // namespace simd
using namespace simd;

#include <lowrank/kernels/target/neon/int8.inl>
#include <lowrank/kernels/target/neon/few_int8.inl>

inline bool is_available() { return true; }

template <bool Rounded>
constexpr PanelKernels panel_kernels() {
  return {.lanes = lanes,
          .vectors = vectors,
          .columns = columns,
          .unit = 1,
          .grain = 1,
          .pack_rows = pack_rows<lanes, Rounded>,
          .pack_columns = pack_columns<lanes, Rounded>,
          .pack_token_rows = pack_rows<columns, Rounded>,
          .pack_token_columns = pack_columns<columns, Rounded>,
          .pack_blocks = pack_blocks<Rounded>,
          .multiply = multiply};
}

inline constexpr Target target = {.name = "neon",
                                  .is_available = is_available,
                                  .fp32 = panel_kernels<false>(),
                                  .bf16 = panel_kernels<true>(),
                                  .decode_blocks = decode_blocks,
                                  .widen_bfloat16 = widen_bfloat16,
                                  .widen_half = widen_half,
                                  .few_tokens = few_tokens,
                                  .few_tokens_bf16 = few_tokens,
                                  .few_tokens_int8 = few_tokens_int8,
                                  .to_int8 = to_int8,
                                  .quantize = scalar::target.quantize,
                                  .elementwise = elementwise};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::neon
LOWRANK_IEEE_END

#endif  // defined(__aarch64__) && defined(__ARM_NEON)
