#pragma once

/// What this machine can do at most, measured: multiply-add peaks and the bandwidth of reading memory, on all threads at once.

#include <chrono>
#include <cstdint>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/dispatch.hpp>

namespace benchmarks {

using lowrank::Index;

inline double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// FLOP/s of a micro-kernel on panels that stay in the first-level cache: the ceiling of any product with it.
inline double kernel_peak(const lowrank::kernels::KernelTable& table, const lowrank::kernels::PanelKernels& kernels) {
  using lowrank::kernels::Word;
  constexpr Index words = 128, repeats = 400;
  const int threads = lowrank::thread_count();
  const double start = seconds();
  lowrank::parallel_for(threads, [&](Index) {
    alignas(64) static thread_local Word a[words * 64] = {}, b[words * 16] = {};
    alignas(64) static thread_local float c[64 * 16] = {};
    for (Index i = 0; i < repeats; ++i) kernels.multiply(words, table.vectors, table.rows(), table.columns, a, b, c, table.rows(), false);
  });
  return 2.0 * static_cast<double>(words * kernels.unit * table.rows() * table.columns * repeats * threads) / (seconds() - start);
}

}  // namespace benchmarks
