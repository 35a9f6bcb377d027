#include <benchmark/benchmark.h>

#include <algorithm>
#include <span>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/quant.hpp>

// Quantizing and dequantizing a 4096 × 4096 matrix: time, and the bytes of weights read or written a second.

namespace {

using namespace lowrank;

Weight<float> normal(Index rows, Index cols) {
  Random random(1);
  Weight<float> w(rows, cols);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = 0.02f * random.normal();
  return w;
}
const Weight<float>& weights() {
  static const Weight<float> w = normal(4096, 4096);
  return w;
}

void count_bytes(benchmark::State& state, std::size_t element) {
  state.SetBytesProcessed(state.iterations() * weights().size() * static_cast<std::int64_t>(element));
}

template <class Format>
void quantize_floats(benchmark::State& state) {
  const Weight<float>& w = weights();
  for (auto _ : state) benchmark::DoNotOptimize(quantize<Format>(w));
  count_bytes(state, sizeof(float));
}
template <class Format>
void quantize_by_search(benchmark::State& state) {
  const Weight<float>& w = weights();
  for (auto _ : state) benchmark::DoNotOptimize(quantize<Format>(w, Search{}));
  count_bytes(state, sizeof(float));
}
template <class Format>
void quantize_bfloat16(benchmark::State& state) {
  std::vector<bfloat16> w(static_cast<std::size_t>(weights().size()));
  std::transform(weights().data(), weights().data() + weights().size(), w.begin(), [](float x) { return bfloat16(x); });
  const DenseSource<bfloat16> source(w.data(), weights().rows(), weights().cols());
  for (auto _ : state) benchmark::DoNotOptimize(quantize<Format>(source));
  count_bytes(state, sizeof(bfloat16));
}

/// Into memory that has been touched before.
template <class Format, class Element>
void dequantize_again(benchmark::State& state) {
  const auto q = quantize<Format>(weights());
  std::vector<Element> out(static_cast<std::size_t>(weights().size()));
  for (auto _ : state) dequantize_into(q, std::span<Element>(out));
  count_bytes(state, sizeof(Element));
}
/// Into a new matrix, page faults included.
template <class Format>
void dequantize_fresh(benchmark::State& state) {
  const auto q = quantize<Format>(weights());
  for (auto _ : state) benchmark::DoNotOptimize(dequantize(q).data());
  count_bytes(state, sizeof(float));
}

void settings(benchmark::internal::Benchmark* b) { b->UseRealTime()->Unit(benchmark::kMillisecond); }

BENCHMARK(quantize_floats<Nf4<64>>)->Apply(settings);
BENCHMARK(quantize_floats<Nf4<64, DoubleQuant>>)->Apply(settings);
BENCHMARK(quantize_floats<Nf4<32>>)->Apply(settings);
BENCHMARK(quantize_floats<Nf4<4096>>)->Apply(settings);
BENCHMARK(quantize_floats<Fp4<64>>)->Apply(settings);
BENCHMARK(quantize_by_search<Nf4<64>>)->Apply(settings);
BENCHMARK(quantize_floats<Q4_0>)->Apply(settings);
BENCHMARK(quantize_floats<Q4_1>)->Apply(settings);
BENCHMARK(quantize_floats<Q8_0>)->Apply(settings);
BENCHMARK(quantize_bfloat16<Nf4<64, DoubleQuant>>)->Apply(settings);
BENCHMARK(dequantize_again<Nf4<64>, float>)->Apply(settings);
BENCHMARK(dequantize_again<Nf4<64, DoubleQuant>, float>)->Apply(settings);
BENCHMARK(dequantize_again<Q4_1, float>)->Apply(settings);
BENCHMARK(dequantize_again<Q8_0, float>)->Apply(settings);
BENCHMARK(dequantize_again<Nf4<64>, bfloat16>)->Apply(settings);
BENCHMARK(dequantize_again<Nf4<64, DoubleQuant>, bfloat16>)->Apply(settings);
BENCHMARK(dequantize_again<Q4_1, bfloat16>)->Apply(settings);
BENCHMARK(dequantize_fresh<Nf4<64, DoubleQuant>>)->Apply(settings);

}  // namespace
