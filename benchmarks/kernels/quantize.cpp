#include <benchmark/benchmark.h>

#include <support/clock.hpp>
#include <support/formats.hpp>

// Quantizing and dequantizing a weight of [4096, 4096]; bytes are those of its fp32 numbers.

namespace {

using namespace benchmarks;
using namespace lowrank;

const Weight<float>& weight() {
  static const auto w = random_matrix<Weight<float>>(4096, 4096, 1);
  return w;
}

template <class Call>
void measure(benchmark::State& state, const Call& call) {
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(time_of(call));
    state.SetIterationTime(times.back());
  }
  const double time = median(times), count = static_cast<double>(weight().size());
  state.counters["median_seconds"] = time;
  state.counters["weights/s"] = count / time;
  state.counters["bytes/s"] = count * sizeof(float) / time;
}

template <class Quantization>
void quantize_weight(benchmark::State& state) {
  measure(state, [] { benchmark::DoNotOptimize(quantize<Quantization>(weight()).bytes()); });
}

template <class Quantization>
void dequantize_weight(benchmark::State& state) {
  const auto q = quantize<Quantization>(weight());
  measure(state, [&] { benchmark::DoNotOptimize(dequantize(q).data()); });
}

/// Into memory that was touched before, which is what a program does that dequantizes often.
template <class Quantization, class Element>
void dequantize_weight_into(benchmark::State& state) {
  const auto q = quantize<Quantization>(weight());
  std::vector<Element> out(static_cast<std::size_t>(q.rows() * q.cols()));
  measure(state, [&] {
    dequantize_into(q, std::span(out));
    benchmark::DoNotOptimize(out.data());
  });
}

template <class Quantization>
void add(const std::string& name) {
  const auto add_one = [](const std::string& full, void (*function)(benchmark::State&)) {
    benchmark::RegisterBenchmark(full.c_str(), function)->UseManualTime()->Unit(benchmark::kMillisecond);
  };
  add_one("quantize/" + name, quantize_weight<Quantization>);
  add_one("dequantize/" + name, dequantize_weight<Quantization>);
  add_one("dequantize_into/" + name + "/fp32", dequantize_weight_into<Quantization, float>);
  add_one("dequantize_into/" + name + "/bf16", dequantize_weight_into<Quantization, BFloat16>);
}

const bool added = [] {
  add<Nf4<64>>("nf4");
  add<Nf4<64, DoubleQuant>>("nf4_dq");
  add<Q4_1>("q4_1");
  add<Q8_0>("q8_0");
  return true;
}();

}  // namespace
