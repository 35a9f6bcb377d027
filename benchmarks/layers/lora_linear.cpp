#include <benchmark/benchmark.h>

#include <lowrank/nn.hpp>

#include <support/clock.hpp>
#include <support/formats.hpp>

// A linear layer of [4096, 4096] with an update of every rank, beside the same layer without (rank 0, which shows the noise).
//
// The update adds r (in + out) / (in out) to the FLOPs of a forward pass, and one and a half times that share to those of forward and
// backward (the base has no weight gradient). `over_bare` is its time over that of the bare layer, measured in turn; `flops` what its FLOPs
// alone would make of it; `beyond_flops` = over_bare / flops: what an adapter costs beyond its FLOPs, 1 at best.

namespace {

using namespace benchmarks;
using namespace lowrank;

constexpr Index size = 4096;

using Nf4Linear = QuantizedLinear<Nf4<64, DoubleQuant>>;

const Weight<float>& weight() {
  static const auto w = random_matrix<Weight<float>>(size, size, 1);
  return w;
}

Nf4Linear nf4_base() {
  static const auto q = quantize<Nf4<64, DoubleQuant>>(weight());
  Nf4Linear layer{q};
  layer.set_compute(Compute::bf16);
  return layer;
}

Linear<float> dense_base() {
  Linear<float> layer(weight());
  layer.set_trainable(false);
  return layer;
}

template <class Layer>
double forward_seconds(const Layer& layer, const Activation<float>& x) {
  return time_of([&] { benchmark::DoNotOptimize(layer(x).data()); });
}

/// From X to the gradients of X, A and B.
template <class Layer>
double training_seconds(Layer& layer, const Activation<float>& x, const Activation<float>& g) {
  Tape<float> tape;
  const Var<float> input = tape.variable(x);
  Activation<float> gradient = g;
  return time_of([&] { tape.backward(layer(input), std::move(gradient)); });
}

template <class Base>
void measure(benchmark::State& state, Base base, Index rank, Index tokens, bool with_backward) {
  const auto x = random_matrix<Activation<float>>(size, tokens, 2), g = random_matrix<Activation<float>>(size, tokens, 3);
  LoraLinear<Base> layer{base, {.rank = std::max<Index>(1, rank), .alpha = 16}};
  const auto seconds_of = [&](auto& which) { return with_backward ? training_seconds(which, x, g) : forward_seconds(which, x); };
  std::vector<double> bare, adapted;
  seconds_of(base), seconds_of(layer);
  for (auto _ : state) {
    bare.push_back(seconds_of(base));
    adapted.push_back(rank > 0 ? seconds_of(layer) : seconds_of(base));
    state.SetIterationTime(adapted.back());
  }
  const double passes = with_backward ? 2 : 1, share = (with_backward ? 1.5 : 1.0) * static_cast<double>(rank) * 2.0 / size;
  const double over_bare = median(adapted) / median(bare);
  state.counters["median_seconds"] = median(adapted);
  state.counters["FLOP/s"] = 2.0 * passes * size * size * static_cast<double>(tokens) * (1 + share) / median(adapted);
  state.counters["over_bare"] = over_bare;
  state.counters["flops"] = 1 + share;
  state.counters["beyond_flops"] = over_bare / (1 + share);
}

template <class Base>
void add(const char* name, Base (*make)()) {
  for (const bool with_backward : {false, true})
    for (const Index tokens : {1, 8, 64, 512, 2048})
      for (const Index rank : {0, 1, 2, 4, 8, 16, 32, 64, 128, 256})
        benchmark::RegisterBenchmark(
            concat("lora_linear/", name, with_backward ? "/forward_backward" : "/forward", "/tokens:", tokens, "/rank:", rank).c_str(),
            [=](benchmark::State& state) { measure(state, make(), rank, tokens, with_backward); })
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
}

const bool added = [] {
  add<Nf4Linear>("nf4_dq/bf16", nf4_base);
  add<Linear<float>>("fp32/fp32", dense_base);
  return true;
}();

}  // namespace
