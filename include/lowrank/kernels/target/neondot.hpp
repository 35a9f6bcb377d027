#pragma once

/// Advanced SIMD with dot products of bytes (FEAT_DotProd): sdot for few tokens in 8 bits; the rest is that of neon.
///
/// 16 products take one sdot, where neon takes a multiplication, a multiply-add and a sum of pairs. smmla (FEAT_I8MM) would take a half,
/// but two rows and two tokens must lie side by side for it: for eight tokens and a chunk of four rows 32 smmla and 40 moves in place of
/// 64 sdot and 24 sums of pairs, for one token nothing.

#if defined(__aarch64__) && defined(__ARM_NEON)

#include <cstdint>

#include <lowrank/core/platform.hpp>
#include <lowrank/kernels/target/neon.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::neondot {

using namespace neon::simd;

// GCC 12 and clang 14 offer the intrinsics only to units compiled with -march for them, hence assembly. Assemblers before binutils 2.41
// want Armv8.2 besides; naming it drops the extensions of the unit's own flags, without which nothing of them could be inlined.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#if !defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_FEATURE_COMPLEX)  // less than Armv8.3
#pragma GCC target("arch=armv8.2-a")
#if defined(__ARM_FEATURE_CRYPTO)
#pragma GCC target("+crypto")
#endif
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
#pragma GCC target("+fp16")
#endif
#if defined(__ARM_FEATURE_SVE)
#pragma GCC target("+sve")
#endif
#endif
#pragma GCC target("+dotprod")
#endif

/// sum[i] + Σ a[4 i + j] b[4 i + j], j < 4.
[[gnu::always_inline]] inline int32x4_t add_dots(int32x4_t sum, int8x16_t a, int8x16_t b) {
  __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(b));
  return sum;
}

[[gnu::always_inline]] inline int32x4_t dot(const int8x16_t* w, const std::int8_t* q) {
  return add_dots(add_dots(vdupq_n_s32(0), w[0], vld1q_s8(q)), w[1], vld1q_s8(q + 16));
}

#include <lowrank/kernels/target/neon/few_int8.inl>

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

inline bool is_available() { return platform::has_arm_feature(platform::ArmFeature::dot_product); }

constexpr Target make_target() {
  Target all = neon::target;
  all.name = "neondot";
  all.is_available = is_available;
  all.few_tokens_int8 = few_tokens_int8;
  return all;
}
inline constexpr Target target = make_target();

}  // namespace lowrank::inline LOWRANK_ABI::kernels::neondot
LOWRANK_IEEE_END

#endif  // defined(__aarch64__) && defined(__ARM_NEON)
