#pragma once

/// What this machine can do at most, measured: multiply-add peaks and the bandwidth of reading memory, on all threads at once.

#include <atomic>
#include <cstdint>
#include <numeric>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

#include <support/clock.hpp>

namespace benchmarks {

using lowrank::Index;

/// FLOP/s of a micro-kernel on panels that stay in the first-level cache: the ceiling of any product with it. The best of three.
inline double kernel_peak(const lowrank::kernels::PanelKernels& kernels) {
  using lowrank::kernels::Word;
  constexpr Index words = 128, repeats = 1000;
  const int threads = lowrank::thread_count();
  const auto multiply = [&](Index) {
    alignas(64) static thread_local Word a[(words + 32) * 64] = {}, b[words * 32] = {};
    alignas(64) static thread_local float c[64 * 32] = {};
    if (kernels.enter != nullptr) kernels.enter();
    for (Index i = 0; i < repeats; ++i)
      kernels.multiply(words, kernels.vectors, kernels.rows(), kernels.columns, a, b, nullptr, 0, c, kernels.rows());
    if (kernels.leave != nullptr) kernels.leave();
  };
  double best = 1e9;
  for (int i = 0; i < 3; ++i) best = std::min(best, time_of([&] { lowrank::parallel_for(threads, multiply); }));
  return 2.0 * static_cast<double>(words * kernels.unit * kernels.rows() * kernels.columns * repeats * threads) / best;
}

/// Bytes that exceed every cache, so that reading them in turn means reading memory.
inline constexpr std::size_t beyond_caches = std::size_t{256} << 20;

/// Bytes a second of reading 256 MiB front to back, all threads together. The best of three.
inline double read_bandwidth() {
  static const lowrank::Buffer memory = lowrank::Buffer::allocate(beyond_caches);
  static std::atomic<std::uint64_t> sink;  // what is read must count for something
  constexpr Index grain = 1 << 17;
  const auto* words = memory.as<std::uint64_t>();
  const Index count = static_cast<Index>(beyond_caches / sizeof(std::uint64_t));
  const auto read = [&](Index begin, Index end) { sink += std::accumulate(words + begin, words + end, std::uint64_t{0}); };
  double best = 1e9;
  for (int i = 0; i < 3; ++i) best = std::min(best, time_of([&] { lowrank::parallel_ranges(count, grain, read); }));
  return static_cast<double>(beyond_caches) / best;
}

}  // namespace benchmarks
