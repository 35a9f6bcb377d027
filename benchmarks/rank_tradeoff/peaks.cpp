#include <kernels/peak.hpp>

#include <rank_tradeoff/options.hpp>

namespace rank_tradeoff {

Peaks measure_peaks() {
  const auto& table = lowrank::kernels::current_target();
  Peaks peaks{benchmarks::kernel_peak(table.fp32), benchmarks::kernel_peak(table.bf16), benchmarks::read_bandwidth(), 0};
  constexpr int loops = 1000;
  const int threads = lowrank::thread_count();
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) times.push_back(sample(loops, [&] { lowrank::parallel_for(threads, [](Index) {}); }).wall);
  peaks.region = *std::min_element(times.begin(), times.end());
  return peaks;
}

}  // namespace rank_tradeoff
