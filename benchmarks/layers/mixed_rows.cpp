// One batch of 8 rows: one adapter for all, or another one in each row, over one NF4 layer. The base product is done once either way.

#include <benchmark/benchmark.h>

#include <vector>

#include <lowrank/nn/forward_together.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/matrix.hpp>

namespace {

using namespace lowrank;

constexpr Index rows = 8, rank = 16;

struct Rows {
  AdaptedLinear layer;
  std::vector<LoraWeights<float>> updates;
  Activation<float> x;

  explicit Rows(Index size, Index length) : x(size, rows * length) {
    Weight<float> w(size, size);
    fill_normal(w, 0.02, Random(1));
    fill_normal(x, 1, Random(2));
    layer = AdaptedLinear(AnyLinear(AnyMatrix(quantize<Nf4<64>>(w))));
    layer.base.set_compute(Compute::bf16);
    for (Index i = 0; i < rows; ++i) {
      updates.push_back(make_lora<float>(size, size, {.rank = rank, .seed = static_cast<std::uint64_t>(i)}));
      fill_normal(updates.back().b.value, 0.02, Random(3));
    }
  }
};

void one_adapter(benchmark::State& state) {
  Rows batch(state.range(0), state.range(1));
  const LayerUse use{&batch.layer, &batch.updates[0]};
  const Var<float> x(batch.x);
  for (auto _ : state) benchmark::DoNotOptimize(forward_together(std::span(&use, 1), x));
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(batch.x.cols()), benchmark::Counter::kIsIterationInvariantRate);
}

void adapter_a_row(benchmark::State& state) {
  Rows batch(state.range(0), state.range(1));
  LayerUse use{&batch.layer};
  const Var<float> x(batch.x);
  for (Index i = 0; i < rows; ++i) use.ranges.push_back({i * state.range(1), state.range(1), &batch.updates[static_cast<std::size_t>(i)]});
  for (auto _ : state) benchmark::DoNotOptimize(forward_together(std::span(&use, 1), x));
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(batch.x.cols()), benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

BENCHMARK(one_adapter)->Args({576, 64})->Args({1536, 64})->Args({4096, 64})->UseRealTime();
BENCHMARK(adapter_a_row)->Args({576, 64})->Args({1536, 64})->Args({4096, 64})->UseRealTime();
