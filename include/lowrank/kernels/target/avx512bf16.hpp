#pragma once

/// AVX-512 with BF16 and VNNI: products of bfloat16 and of bytes; the rest is that of AVX-512. Its conversions make zeros of subnormal
/// numbers.

#if defined(__x86_64__)

#include <lowrank/kernels/target/avx512.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::avx512bf16 {

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512bf16,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own intrinsics start from an undefined register
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#endif

#include <lowrank/kernels/target/avx512bf16/panels.inl>
#include <lowrank/kernels/target/multiply.inl>

#include <lowrank/kernels/target/avx512bf16/few.inl>
#include <lowrank/kernels/target/avx512bf16/rows.inl>

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

inline bool is_available() {
  return avx512::is_available() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
}

constexpr Target make_target() {
  Target all = avx512::target;
  all.name = "avx512bf16";
  all.is_available = is_available;
  all.bf16 = {.lanes = lanes,
              .vectors = vectors,
              .columns = columns,
              .unit = 2,
              .grain = 2,
              .pack_rows = pack_rows,
              .pack_columns = pack_columns<lanes>,
              .pack_token_rows = pack_8_rows,
              .pack_token_columns = pack_columns<columns>,
              .pack_blocks = pack_blocks,
              .pack_blocks_transposed = pack_blocks_transposed,
              .packs_any_rows = true,
              .multiply = multiply,
              .multiply_blocks = multiply_blocks};
  all.few_tokens_bf16 = few_tokens;
  all.few_tokens_int8 = few_tokens_int8;
  all.to_bfloat16 = to_bfloat16;
  all.to_int8 = to_int8;
  all.elementwise.bfloat16_products = {dots_of_columns, add_weighted_rows_to_columns};
  return all;
}
inline constexpr Target target = make_target();

}  // namespace lowrank::inline LOWRANK_ABI::kernels::avx512bf16
LOWRANK_IEEE_END

#endif  // defined(__x86_64__)
