#include <benchmark/benchmark.h>

#include <lowrank/kernels/driver/gemm.hpp>

#include <support/formats.hpp>
#include "baselines.hpp"
#include "peak.hpp"

// Y = W X of every format and compute type, beside three loops, beside Eigen, and beside what the machine can do: the multiply-add peak of
// the kernel and the bandwidth of memory, both measured right before. The weights come from memory each time, as those of a model that is
// larger than the caches do.
//
// Counters are of the median time. of_peak is of the micro-kernel of the compute type (int8: of the bf16 one, loops and Eigen: of the fp32
// one).

namespace {

using namespace benchmarks;
using lowrank::Compute;
namespace kernels = lowrank::kernels;

struct Case {
  const Format* format;
  Index rows, cols, tokens;
  bool is_transposed = false;
};

using Multiply = void (*)(const AnyMatrix& w, const Activation<float>& x, Activation<float>& y);

template <Compute compute>
void multiply(const AnyMatrix& w, const Activation<float>& x, Activation<float>& y) {
  kernels::multiply(w, x.data(), x.rows(), x.cols(), y.data(), y.rows(), {.compute = compute});
}
template <Compute compute>
void multiply_transposed(const AnyMatrix& w, const Activation<float>& x, Activation<float>& y) {
  kernels::multiply(lowrank::transposed(w), x.data(), x.rows(), x.cols(), y.data(), y.rows(), {.compute = compute});
}

void measure(benchmark::State& state, const Case& c, Multiply product, bool is_fp32) {
  const auto& weights = copies(*c.format, c.rows, c.cols, beyond_caches);
  const auto x = random_matrix<Activation<float>>(c.is_transposed ? c.rows : c.cols, c.tokens, 2);
  Activation<float> y(c.is_transposed ? c.cols : c.rows, c.tokens);
  const kernels::Target& target = kernels::current_target();
  const double peak = kernel_peak(is_fp32 ? target.fp32 : target.bf16), bandwidth = read_bandwidth();
  std::size_t next = 0;
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(time_of([&] { product(weights[next++ % weights.size()], x, y); }));
    state.SetIterationTime(times.back());
  }
  const double flops = 2.0 * static_cast<double>(c.rows * c.cols * c.tokens), time = median(times);
  const double bytes = static_cast<double>(weights.front().bytes()) + static_cast<double>(x.size() + y.size()) * sizeof(float);
  state.counters["FLOP/s"] = flops / time;
  state.counters["bytes/s"] = bytes / time;
  state.counters["of_peak"] = flops / time / peak;
  state.counters["of_bandwidth"] = bytes / time / bandwidth;
}

void add(const Case& c, const char* how, Multiply product, bool is_fp32) {
  const std::string name = lowrank::concat("product/", c.format->name, '/', how, '/', c.rows, 'x', c.cols, "/tokens:", c.tokens);
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { measure(state, c, product, is_fp32); })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

void add_products(const Format& format, Index rows, Index cols, Index tokens) {
  const Case c{&format, rows, cols, tokens};
  add(c, "fp32", multiply<Compute::fp32>, true);
  add(c, "bf16", multiply<Compute::bf16>, false);
  if (format.is_quantized) add(c, "int8", multiply<Compute::int8>, false);
}

// A shape of large models with everything, and one of small models for the kernels alone.
bool add_all() {
  for (const Format& format : formats()) {
    for (const Index tokens : {1, 8, 64, 512}) {
      add_products(format, 4096, 4096, tokens);
      const Case c{&format, 4096, 4096, tokens}, back{&format, 4096, 4096, tokens, true};
      if (tokens == 512) add(back, "transposed_fp32", multiply_transposed<Compute::fp32>, true);
      if (tokens == 512) add(back, "transposed_bf16", multiply_transposed<Compute::bf16>, false);
      add(c, "loops", loop_product, true);
      add(c, "eigen", eigen_product, true);
    }
    for (const Index tokens : {1, 8, 64, 512}) add_products(format, 1536, 768, tokens);
  }
  // Rows that begin inside groups, and inside bytes, beside their neighbours that do not.
  for (const Format& format : formats()) {
    if (format.name != "nf4" && format.name != "nf4_dq") continue;
    for (const Index cols : {2976, 3000, 3001, 3008, 3072})
      for (const Index tokens : {1, 4, 8, 512}) {
        add_products(format, 1000, cols, tokens);
        const Case c{&format, 1000, cols, tokens, true};
        add(c, "transposed_fp32", multiply_transposed<Compute::fp32>, true);
        add(c, "transposed_bf16", multiply_transposed<Compute::bf16>, false);
      }
  }
  return true;
}

const bool added = add_all();

}  // namespace
