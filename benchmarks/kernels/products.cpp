#include <benchmark/benchmark.h>

#include <lowrank/kernels/gemm.hpp>

#include "../../tests/unit/kernels/fixtures.hpp"
#include "peak.hpp"

// Products of NF4, Q4_1 and dense weights beside the peak of the micro-kernel that computes them, measured before each.

namespace {

using namespace fixtures;

template <class S>
void measure(benchmark::State& state, const S& source, Compute compute) {
  const Index rows = source.rows(), depth = source.cols(), tokens = state.range(2);
  const auto x = random_floats(depth * tokens, 4);
  std::vector<float> y(static_cast<std::size_t>(rows * tokens));
  const kernels::KernelTable& table = kernels::current_table();
  const double peak = benchmarks::kernel_peak(table, compute == Compute::fp32 ? table.fp32 : table.bf16);
  for (auto _ : state) kernels::multiply(source, x.data(), depth, tokens, y.data(), rows, {.compute = compute});
  const double flops = 2.0 * static_cast<double>(rows * depth * tokens);
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_peak"] = benchmark::Counter(flops / peak, benchmark::Counter::kIsIterationInvariantRate);
}

void nf4(benchmark::State& state, Compute compute) {
  const Blocks w = pairs(state.range(0), state.range(1), 64, false, 1);
  measure(state, w.source, compute);
}
void nf4_transposed(benchmark::State& state, Compute compute) {
  const Blocks w = pairs(state.range(0), state.range(1), 64, false, 1);
  measure(state, transposed(w.source), compute);
}
void q4_1(benchmark::State& state, Compute compute) {
  const Blocks w = ggml(state.range(0), state.range(1), 4, true, 2);
  measure(state, w.source, compute);
}
void dense(benchmark::State& state, Compute compute) {
  const auto w = random_floats(state.range(0) * state.range(1), 3);
  measure(state, DenseSource<float>(w.data(), state.range(0), state.range(1)), compute);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (auto [rows, depth] : {std::pair<int, int>{4096, 4096}, {576, 576}, {1536, 576}, {576, 1536}})
    for (int tokens : {1, 8, 64, 512}) b->Args({rows, depth, tokens});
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_CAPTURE(nf4, fp32, Compute::fp32)->Apply(shapes);
BENCHMARK_CAPTURE(nf4, bf16, Compute::bf16)->Apply(shapes);
BENCHMARK_CAPTURE(nf4, int8, Compute::int8)->Apply(shapes);
BENCHMARK_CAPTURE(nf4_transposed, bf16, Compute::bf16)->Apply(shapes);
BENCHMARK_CAPTURE(q4_1, bf16, Compute::bf16)->Apply(shapes);
BENCHMARK_CAPTURE(q4_1, int8, Compute::int8)->Apply(shapes);
BENCHMARK_CAPTURE(dense, fp32, Compute::fp32)->Apply(shapes);
BENCHMARK_CAPTURE(dense, bf16, Compute::bf16)->Apply(shapes);

}  // namespace
