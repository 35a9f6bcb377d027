#pragma once

/// Multiply-adds from registers alone, on all threads at once: what no product can exceed. For this machine's instructions only.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

#include <support/clock.hpp>

namespace benchmarks {

using lowrank::Index;

/// FLOP/s of `steps` calls of step, each of so many FLOPs, on every thread. The best of five.
template <class Step>
double peak_of(const Step& step, double flops) {
  constexpr Index steps = 20'000'000 / 64;
  const int threads = lowrank::thread_count();
  double best = 1e9;
  for (int i = 0; i < 5; ++i) best = std::min(best, time_of([&] { lowrank::parallel_for(threads, [&](Index) { step(steps); }); }));
  return flops * static_cast<double>(steps) * threads / best;
}

#if defined(__AVX512F__) || defined(__AVX2__)

/// Chains of vectors, enough to hide an instruction's latency; add(sum) is one multiply-add of a vector.
template <class Vector, class Add>
double vector_peak(const Add& add, double flops) {
  constexpr int chains = 12;
  const auto step = [&](Index steps) {
    Vector sum[chains] = {};
    for (Index i = 0; i < steps; ++i) {
#pragma GCC unroll 12
      for (int c = 0; c < chains; ++c) {
        sum[c] = add(sum[c]);
        __asm__ volatile("" : "+v"(sum[c]));  // so that each is computed
      }
    }
  };
  return peak_of(step, chains * flops);
}

#endif

/// Of the instructions that a target's kernels for a compute type multiply with; 0 where this program was not compiled for them.
inline double register_peak([[maybe_unused]] const lowrank::kernels::Target& target, [[maybe_unused]] bool is_bf16) {
#if defined(__AVX512F__)
  if (std::strcmp(target.name, "amx") == 0 && is_bf16) {
    using Tiles = lowrank::kernels::amx::HardwareTiles;
    const auto step = [](Index steps) {
      Tiles::configure(lowrank::kernels::amx::all_tiles);
      Tiles::zero<0>(), Tiles::zero<1>(), Tiles::zero<2>(), Tiles::zero<3>();
      Tiles::zero<4>(), Tiles::zero<5>(), Tiles::zero<6>(), Tiles::zero<7>();
      for (Index i = 0; i < steps; ++i) {
        Tiles::add_bfloat16<0, 4, 6>(), Tiles::add_bfloat16<1, 4, 7>();
        Tiles::add_bfloat16<2, 5, 6>(), Tiles::add_bfloat16<3, 5, 7>();
      }
      Tiles::release();
    };
    return peak_of(step, 4 * 2.0 * 16 * 16 * 32);
  }
#if defined(__AVX512BF16__)
  if (target.bf16.unit == 2 && is_bf16) {
    const __m512bh pair = (__m512bh)_mm512_setzero_si512();
    return vector_peak<__m512>([pair](__m512 sum) { return _mm512_dpbf16_ps(sum, pair, pair); }, 2.0 * 32);
  }
#endif
  if (target.fp32.lanes == 16)
    return vector_peak<__m512>([](__m512 sum) { return _mm512_fmadd_ps(_mm512_setzero_ps(), _mm512_setzero_ps(), sum); }, 2.0 * 16);
#endif
#if defined(__AVX2__)
  if (target.fp32.lanes == 8)
    return vector_peak<__m256>([](__m256 sum) { return _mm256_fmadd_ps(_mm256_setzero_ps(), _mm256_setzero_ps(), sum); }, 2.0 * 8);
#endif
  return 0;
}

}  // namespace benchmarks
