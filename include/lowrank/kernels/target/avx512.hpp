#pragma once

/// AVX-512 (F, BW, VL, DQ): 16 floats a vector, panels of 48 rows and 8 tokens (24 sums, 3 rows, 1 token of 32 registers).

#if defined(__x86_64__)

#include <lowrank/kernels/target/avx2.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::avx512 {

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own intrinsics start from an undefined register
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#endif

namespace simd {  // what avx512bf16 shares
#include <lowrank/kernels/target/avx512/floats.inl>

#include <lowrank/kernels/target/avx512/chunks.inl>
}  // namespace simd
using namespace simd;

#include <lowrank/kernels/target/elementwise.inl>

#include <lowrank/kernels/target/avx512/panels.inl>
#include <lowrank/kernels/target/multiply.inl>

#include <lowrank/kernels/target/avx512/few.inl>
#include <lowrank/kernels/target/avx512/quantize.inl>

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

inline bool is_available() {
  return avx2::is_available() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

template <bool Rounded>
constexpr PanelKernels panel_kernels() {
  return {.lanes = lanes,
          .vectors = vectors,
          .columns = columns,
          .unit = 1,
          .grain = 1,
          .pack_rows = pack_rows<Rounded>,
          .pack_columns = pack_columns<Rounded>,
          .pack_token_rows = avx2::pack_rows<columns, Rounded>,
          .pack_token_columns = avx2::pack_columns<columns, Rounded>,
          .pack_blocks = pack_blocks<Rounded>,
          .packs_any_rows = true,
          .multiply = multiply,
          .multiply_blocks = Rounded ? nullptr : multiply_blocks};
}

inline constexpr Target target = {.name = "avx512",
                                  .is_available = is_available,
                                  .fp32 = panel_kernels<false>(),
                                  .bf16 = panel_kernels<true>(),
                                  .decode_blocks = decode_blocks,
                                  .widen_bfloat16 = avx2::widen_bfloat16,
                                  .widen_half = avx2::widen_half,
                                  .few_tokens = few_tokens,
                                  .few_tokens_bf16 = few_tokens,
                                  .quantize = {.encode_table = avx2::encode_table,
                                               .encode_extreme = avx2::encode_extreme,
                                               .encode_range = avx2::encode_range,
                                               .encode_bytes = avx2::encode_bytes,
                                               .decode_float = avx2::decode<FloatGroup, float>,
                                               .decode_bfloat16 = avx2::decode<Bfloat16Group, BFloat16>},
                                  .elementwise = elementwise};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::avx512
LOWRANK_IEEE_END

#endif  // defined(__x86_64__)
