#pragma once

/// Advanced SIMD with bfloat16 (FEAT_BF16) and dot products of bytes: bfmmla for many tokens, and for five to eight; the rest is that of
/// neondot.
///
/// 16 products take one bfmmla and 0.42 loads, where neon takes 4 multiply-adds and 0.83 loads: a panel of 8 rows and 12 tokens is 24
/// registers of sums, 4 of rows and 1 of tokens. With eight tokens in NF4 they take 4 vector instructions, decoding included, where neon
/// takes 6.2.
///
/// bfmmla rounds in its own way: the sum of two products and each sum after it round to odd (what is cut off sets the last bit), and
/// subnormal numbers count as zero. Where a program sets FPCR.EBF (FEAT_EBF16), two products are added with one rounding, and all roundings
/// are those that FPCR asks for. Either way an element is one chain over pairs of neighbours in the order of the depth, so its bits depend
/// on no blocking, and its error is at most (2⁻⁷ + (depth + 4) 2⁻²⁴) Σ |w| |x|.

#if defined(__aarch64__) && defined(__ARM_NEON)

#include <lowrank/core/platform.hpp>
#include <lowrank/kernels/target/neondot.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::neonbf16 {

using namespace neon::simd;

#if defined(__clang__)  // see neondot
#pragma clang attribute push(__attribute__((target("bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("+bf16")
#endif

#include <lowrank/kernels/target/neonbf16/panels.inl>

#include <lowrank/kernels/target/neonbf16/few.inl>

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

inline bool is_available() { return neondot::is_available() && platform::has_arm_feature(platform::ArmFeature::bfloat16); }

constexpr Target make_target() {
  Target all = neondot::target;
  all.name = "neonbf16";
  all.is_available = is_available;
  all.bf16 = {.lanes = lanes,
              .vectors = vectors,
              .columns = columns,
              .unit = 2,
              .grain = 4,
              .pack_rows = pack_rows<lanes>,
              .pack_columns = pack_columns<lanes>,
              .pack_token_rows = pack_rows<columns>,
              .pack_token_columns = pack_columns<columns>,
              .pack_blocks = pack_blocks,
              .multiply = multiply};
  all.few_tokens_bf16 = few_tokens_bf16;
  all.to_bfloat16 = to_bfloat16;
  return all;
}
inline constexpr Target target = make_target();

}  // namespace lowrank::inline LOWRANK_ABI::kernels::neonbf16
LOWRANK_IEEE_END

#endif  // defined(__aarch64__) && defined(__ARM_NEON)
