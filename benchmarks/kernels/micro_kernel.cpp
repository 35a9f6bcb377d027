#include <benchmark/benchmark.h>

#include <vector>

#include <lowrank/kernels/driver/loops.hpp>

#include "peak.hpp"
#include "register_peak.hpp"

// The micro-kernel alone, without packing and decoding, on panels that lie where a product has them: all in the first-level cache, or the
// rows' panels in the second one (l2), cut as the driver cuts a product of 4096 x 4096 with 512 tokens.
//
// of_registers is its share of what the same instructions reach from registers, measured right before.

namespace {

using namespace benchmarks;
namespace kernels = lowrank::kernels;

/// Panels of a task: each of `panels` panels of rows times each of `token_panels` panels of tokens.
struct Task {
  const kernels::PanelKernels& kernels;
  Index words, panels, token_panels;
  std::vector<kernels::Word> a, b;
  std::vector<float> c;

  Task(const kernels::PanelKernels& k, const kernels::detail::Blocking& blocking, Index row_panels)
      : kernels(k),
        words(blocking.depth / k.unit),
        panels(row_panels),
        token_panels(8),
        a(static_cast<std::size_t>(panels * words * k.rows() + 64)),
        b(static_cast<std::size_t>(token_panels * words * k.columns + 64)),
        c(static_cast<std::size_t>(k.rows() * k.columns)) {}

  void run() {
    for (Index t = 0; t < token_panels; ++t)
      for (Index r = 0; r < panels; ++r)
        kernels.multiply(words, kernels.vectors, kernels.rows(), kernels.columns, a.data() + r * words * kernels.rows(),
                         b.data() + t * words * kernels.columns, nullptr, 0, c.data(), kernels.rows());
  }
  double flops() const {
    return 2.0 * static_cast<double>(words * kernels.unit * panels * kernels.rows() * token_panels * kernels.columns);
  }
};

void measure(benchmark::State& state, bool is_bf16, bool in_second_cache) {
  const kernels::Target& target = kernels::current_target();
  const kernels::PanelKernels& chosen = is_bf16 ? target.bf16 : target.fp32;
  const double peak = register_peak(target, is_bf16);
  const int threads = lowrank::thread_count();
  kernels::detail::Blocking blocking(chosen, 4096, 4096, 512);
  if (!in_second_cache) blocking.depth = std::max<Index>(64, blocking.depth / 4);
  std::vector<Task> tasks;
  for (int t = 0; t < threads; ++t) tasks.emplace_back(chosen, blocking, in_second_cache ? blocking.rows / chosen.rows() : 1);
  constexpr Index repeats = 20;
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(time_of([&] {
      lowrank::parallel_for(threads, [&](Index t) {
        if (chosen.enter != nullptr) chosen.enter();
        for (Index i = 0; i < repeats; ++i) tasks[static_cast<std::size_t>(t)].run();
        if (chosen.leave != nullptr) chosen.leave();
      });
    }));
    state.SetIterationTime(times.back());
  }
  const double rate = tasks.front().flops() * static_cast<double>(repeats * threads) / *std::min_element(times.begin(), times.end());
  state.counters["FLOP/s"] = rate;
  state.counters["registers"] = peak;
  if (peak > 0) state.counters["of_registers"] = rate / peak;
}

bool add_all() {
  for (const bool is_bf16 : {false, true})
    for (const bool in_second_cache : {false, true}) {
      const std::string name = std::string("micro_kernel/") + (is_bf16 ? "bf16/" : "fp32/") + (in_second_cache ? "l2" : "l1");
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { measure(state, is_bf16, in_second_cache); })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  return true;
}

const bool added = add_all();

}  // namespace
