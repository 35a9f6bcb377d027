#pragma once

/// AVX2 with FMA and F16C: 8 floats a vector, panels of 24 rows and 4 tokens (12 sums, 3 rows, 1 token: the 16 registers).

#if defined(__x86_64__)

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include <immintrin.h>

#include <lowrank/core/platform.hpp>
#include <lowrank/kernels/target/few.hpp>
#include <lowrank/kernels/target/scalar.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::avx2 {

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#include <lowrank/kernels/target/avx2/floats.inl>
#include <lowrank/kernels/target/elementwise.inl>

#include <lowrank/kernels/target/avx2/panels.inl>
#include <lowrank/kernels/target/multiply.inl>

#include <lowrank/kernels/target/avx2/few.inl>
#include <lowrank/kernels/target/avx2/few_int8.inl>

#include <lowrank/kernels/target/avx2/quantize.inl>
#include <lowrank/kernels/target/avx2/quantize_blocks.inl>

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

inline bool is_available() {
  __builtin_cpu_init();
  return platform::moves_wide_variables() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

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
          .multiply = multiply};
}

inline constexpr Target target = {.name = "avx2",
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
                                  .quantize = {.encode_table = encode_table,
                                               .encode_extreme = encode_extreme,
                                               .encode_range = encode_range,
                                               .encode_bytes = encode_bytes,
                                               .decode_float = decode<FloatGroup, float>,
                                               .decode_bfloat16 = decode<Bfloat16Group, BFloat16>},
                                  .elementwise = elementwise};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::avx2
LOWRANK_IEEE_END

#endif  // defined(__x86_64__)
