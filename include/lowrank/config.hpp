#pragma once

/// Version of the library and the name of its ABI.
///
/// Everything lives in `namespace lowrank::inline LOWRANK_ABI`. The name spells the version, the instruction sets that the unit was
/// compiled for and the macros that change a layout, so that two units compiled with other flags never share an inline function
/// (the linker would keep one of the two bodies); passing a lowrank type between such units is a link error that names the tag.

#if !defined(__cpp_exceptions) && !defined(__EXCEPTIONS) && !defined(_CPPUNWIND) && !defined(__CUDACC__) && !defined(__EMSCRIPTEN__)
#error "lowrank reports errors by exceptions; compile without -fno-exceptions"
#endif

#define LOWRANK_VERSION_MAJOR 0
#define LOWRANK_VERSION_MINOR 1
#define LOWRANK_VERSION_PATCH 0

// LOWRANK_ABI = v0_1_0 [_level] [LETTERS] [_align] [_mode]: on x86-64 with -mavx2 -mfma -fopenmp it is v0_1_0_avx2AC_debug_omp.
// Open the namespace outside of target regions: inside one, GCC changes the flag macros, and with them the name.

// Level: the widest vector unit; the baseline of a platform has none.
#if defined(__AVX512F__)
#define LOWRANK_ABI_LEVEL _avx512
#elif defined(__AVX2__)
#define LOWRANK_ABI_LEVEL _avx2
#elif defined(__AVX__)
#define LOWRANK_ABI_LEVEL _avx
#elif defined(__SSE4_2__)
#define LOWRANK_ABI_LEVEL _sse42
#elif defined(__SSE4_1__)
#define LOWRANK_ABI_LEVEL _sse41
#elif defined(__SSSE3__)
#define LOWRANK_ABI_LEVEL _ssse3
#elif defined(__SSE3__)
#define LOWRANK_ABI_LEVEL _sse3
#elif defined(__ARM_FEATURE_SVE2)
#define LOWRANK_ABI_LEVEL _sve2
#elif defined(__ARM_FEATURE_SVE)
#define LOWRANK_ABI_LEVEL _sve
#elif defined(__ARM_NEON) && !defined(__aarch64__)
#define LOWRANK_ABI_LEVEL _neon
#else
#define LOWRANK_ABI_LEVEL
#endif

// Letters: one for each further set. A flag's macro is 1 or absent; IF(macro, X) is X or nothing.
#define LOWRANK_ABI_SET_1 ,
#define LOWRANK_ABI_PICK(first, second, ...) second
#define LOWRANK_ABI_EXPAND(...) LOWRANK_ABI_PICK(__VA_ARGS__)
#define LOWRANK_ABI_PASTE(macro, letter) LOWRANK_ABI_EXPAND(LOWRANK_ABI_SET_##macro letter, , )
#define LOWRANK_ABI_IF(macro, letter) LOWRANK_ABI_PASTE(macro, letter)
#define LOWRANK_ABI_CAT(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define LOWRANK_ABI_JOIN(a, b, c, d, e, f, g, h) LOWRANK_ABI_CAT(a, b, c, d, e, f, g, h)

// clang-format off
#if defined(__aarch64__) || defined(__arm__)
#define LOWRANK_ABI_LETTERS LOWRANK_ABI_JOIN( \
    LOWRANK_ABI_IF(__ARM_FEATURE_FMA, A), LOWRANK_ABI_IF(__ARM_FEATURE_ATOMICS, B), LOWRANK_ABI_IF(__ARM_FEATURE_DOTPROD, C), \
    LOWRANK_ABI_IF(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC, D), LOWRANK_ABI_IF(__ARM_FEATURE_FP16_FML, E), \
    LOWRANK_ABI_IF(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC, F), LOWRANK_ABI_IF(__ARM_FEATURE_MATMUL_INT8, G), )
#else
#define LOWRANK_ABI_LETTERS LOWRANK_ABI_JOIN( \
    LOWRANK_ABI_JOIN(LOWRANK_ABI_IF(__FMA__, A), LOWRANK_ABI_IF(__F16C__, B), LOWRANK_ABI_IF(__POPCNT__, C), \
                     LOWRANK_ABI_IF(__LZCNT__, D), LOWRANK_ABI_IF(__BMI__, E), LOWRANK_ABI_IF(__BMI2__, F), \
                     LOWRANK_ABI_IF(__MOVBE__, G), LOWRANK_ABI_IF(__GFNI__, H)), \
    LOWRANK_ABI_JOIN(LOWRANK_ABI_IF(__AVX512CD__, I), LOWRANK_ABI_IF(__AVX512BW__, J), LOWRANK_ABI_IF(__AVX512DQ__, K), \
                     LOWRANK_ABI_IF(__AVX512VL__, L), LOWRANK_ABI_IF(__AVX512IFMA__, M), LOWRANK_ABI_IF(__AVX512VBMI__, N), \
                     LOWRANK_ABI_IF(__AVX512VBMI2__, O), LOWRANK_ABI_IF(__AVX512VNNI__, P)), \
    LOWRANK_ABI_JOIN(LOWRANK_ABI_IF(__AVX512BITALG__, Q), LOWRANK_ABI_IF(__AVX512VPOPCNTDQ__, R), LOWRANK_ABI_IF(__AVX512BF16__, S), \
                     LOWRANK_ABI_IF(__AVX512FP16__, T), LOWRANK_ABI_IF(__AVXVNNI__, U), LOWRANK_ABI_IF(__AVXIFMA__, V), \
                     LOWRANK_ABI_IF(__AVXVNNIINT8__, W), LOWRANK_ABI_IF(__AVXNECONVERT__, X)), \
    LOWRANK_ABI_JOIN(LOWRANK_ABI_IF(__AMX_TILE__, Y), LOWRANK_ABI_IF(__AMX_INT8__, Z), LOWRANK_ABI_IF(__AMX_BF16__, a), \
                     LOWRANK_ABI_IF(__AMX_FP16__, b), LOWRANK_ABI_IF(__FMA4__, c), LOWRANK_ABI_IF(__XOP__, d), \
                     LOWRANK_ABI_IF(__VAES__, e), LOWRANK_ABI_IF(__APX_F__, f)), , , , )
#endif
// clang-format on

// Align: the boundaries of Eigen's memory (ideal, allocated, inside an object) where they are not Eigen's own choice for the level.
// Eigen defines these macros itself once it is included; read this way the name is the same before and after.
#if defined(EIGEN_IDEAL_MAX_ALIGN_BYTES)
#define LOWRANK_ABI_IDEAL EIGEN_IDEAL_MAX_ALIGN_BYTES
#elif defined(EIGEN_DONT_VECTORIZE)
#define LOWRANK_ABI_IDEAL 0
#elif defined(__AVX512F__)
#define LOWRANK_ABI_IDEAL 64
#elif defined(__AVX__)
#define LOWRANK_ABI_IDEAL 32
#else
#define LOWRANK_ABI_IDEAL 16
#endif

#if defined(EIGEN_DONT_ALIGN)
#define LOWRANK_ABI_ALLOCATED 0
#elif defined(EIGEN_MAX_ALIGN_BYTES)
#define LOWRANK_ABI_ALLOCATED EIGEN_MAX_ALIGN_BYTES
#else
#define LOWRANK_ABI_ALLOCATED LOWRANK_ABI_IDEAL
#endif

#if defined(EIGEN_DONT_ALIGN) || defined(EIGEN_DONT_ALIGN_STATICALLY)
#define LOWRANK_ABI_INSIDE 0
#elif defined(EIGEN_MAX_STATIC_ALIGN_BYTES)
#define LOWRANK_ABI_INSIDE EIGEN_MAX_STATIC_ALIGN_BYTES
#else
#define LOWRANK_ABI_INSIDE LOWRANK_ABI_IDEAL
#endif
#if !defined(EIGEN_IDEAL_MAX_ALIGN_BYTES) && defined(EIGEN_MAX_ALIGN_BYTES) && EIGEN_MAX_ALIGN_BYTES < LOWRANK_ABI_INSIDE
#undef LOWRANK_ABI_INSIDE
#define LOWRANK_ABI_INSIDE EIGEN_MAX_ALIGN_BYTES  // Eigen's rule: never more inside than allocated, if the user chose the latter
#endif

#if LOWRANK_ABI_IDEAL && LOWRANK_ABI_ALLOCATED == LOWRANK_ABI_IDEAL && LOWRANK_ABI_INSIDE == LOWRANK_ABI_IDEAL
#define LOWRANK_ABI_ALIGN
#else
#define LOWRANK_ABI_ALIGN LOWRANK_ABI_JOIN(_align, LOWRANK_ABI_IDEAL, _, LOWRANK_ABI_ALLOCATED, _, LOWRANK_ABI_INSIDE, , )
#endif

// Whether -ffast-math, -Ofast or a part of them relaxes the rules of arithmetic, as far as macros tell.
#if defined(__FAST_MATH__) || defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0) || \
    (defined(__GCC_IEC_559) && __GCC_IEC_559 == 0)
#define LOWRANK_ABI_IS_RELAXED
#endif

// Mode: what else changes a body or a layout: assertions, OpenMP, relaxed arithmetic, checked containers, sanitizers, and where bodies are.
// Those in a library keep the assertions and the OpenMP that it was made with, so one fits programs with and without them.
#if defined(NDEBUG) || defined(LOWRANK_COMPILED)
#define LOWRANK_ABI_DEBUG
#else
#define LOWRANK_ABI_DEBUG _debug
#endif
#if defined(_OPENMP) && !defined(LOWRANK_COMPILED)
#define LOWRANK_ABI_OPENMP _omp
#else
#define LOWRANK_ABI_OPENMP
#endif
#if defined(_GLIBCXX_DEBUG)
#define LOWRANK_ABI_STL _checked
#else
#define LOWRANK_ABI_STL
#endif
#if defined(LOWRANK_COMPILED)
#define LOWRANK_ABI_BODIES _compiled
#else
#define LOWRANK_ABI_BODIES
#endif
#if defined(LOWRANK_ABI_IS_RELAXED)
#define LOWRANK_ABI_RELAXED _fast
#else
#define LOWRANK_ABI_RELAXED
#endif
#define LOWRANK_ABI_MODE                                                                        \
  LOWRANK_ABI_JOIN(LOWRANK_ABI_DEBUG, LOWRANK_ABI_OPENMP, LOWRANK_ABI_STL, LOWRANK_ABI_RELAXED, \
                   LOWRANK_ABI_IF(__SANITIZE_ADDRESS__, _asan), LOWRANK_ABI_IF(__SANITIZE_THREAD__, _tsan), LOWRANK_ABI_BODIES, )

#define LOWRANK_ABI                                                                                                                       \
  LOWRANK_ABI_JOIN(LOWRANK_ABI_JOIN(v, LOWRANK_VERSION_MAJOR, _, LOWRANK_VERSION_MINOR, _, LOWRANK_VERSION_PATCH, , ), LOWRANK_ABI_LEVEL, \
                   LOWRANK_ABI_LETTERS, LOWRANK_ABI_ALIGN, LOWRANK_ABI_MODE, , , )

// Around functions whose codes and bits follow from the rules of IEEE 754: inside, GCC keeps the rules that the unit's flags relax. Clang
// has no such region that holds for templates, nvcc none at all; what a check or a code rests on is written by integers besides.
#if defined(LOWRANK_ABI_IS_RELAXED) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define LOWRANK_IEEE_BEGIN _Pragma("GCC push_options") _Pragma("GCC optimize(\"no-fast-math\")")
#define LOWRANK_IEEE_END _Pragma("GCC pop_options")
#else
#define LOWRANK_IEEE_BEGIN
#define LOWRANK_IEEE_END
#endif

// Bodies of what is no template stand in x.inl beside x.hpp, marked LOWRANK_INLINE. By default x.hpp includes them, and the library is
// header-only. With LOWRANK_COMPILED it does not: they come from the library lowrank::compiled, whose units define LOWRANK_COMPILING.
#if defined(LOWRANK_COMPILING)
#define LOWRANK_INLINE
#else
#define LOWRANK_INLINE inline
#endif
