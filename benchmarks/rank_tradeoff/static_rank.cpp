#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>

#include <rank_tradeoff/options.hpp>
#include <rank_tradeoff/passes.hpp>

// The rank as a part of the type beside the same rank at run time; and, for a small layer, all sizes in the type.

namespace rank_tradeoff {
namespace {

using lowrank::Dynamic;
using lowrank::Weight;

template <class Layer, class X>
Sample forward_sample(int count, const Layer& layer, const X& x) {
  [[maybe_unused]] static volatile float sink = 0;
  return sample(count, [&] { sink = layer(x)(0, 0); });
}

/// Two layers that hold the same numbers, in turn. They do the same work, so the prediction for each is the other's roofline.
template <class Static, class StaticX>
void pair_rows(const char* base, const Static& fixed, const auto& dynamic, const StaticX& fixed_x, const Activation<float>& x,
               Results& results) {
  const Index d = x.rows(), rank = dynamic.rank();
  Row one{"static", "forward", base, "static", d, x.cols(), rank}, other{"static", "forward", base, "dynamic", d, x.cols(), rank};
  const double size = static_cast<double>(d);
  const Shape s{size, size, static_cast<double>(rank), static_cast<double>(x.cols()), size * size * bits_a_weight(base) / 8, false};
  const int count =
      static_cast<int>(std::clamp(1e-3 / roofline(forward_work(s), peak_of(base, results.peaks), results.peaks), 1.0, 1000.0));
  std::vector<double> ratios;
  for (int i = 0; i < 15; ++i) {
    const Sample a = forward_sample(count, fixed, fixed_x), b = forward_sample(count, dynamic, x);
    one.times.push_back(a.wall), one.cpu.push_back(a.cpu);
    other.times.push_back(b.wall), other.cpu.push_back(b.cpu);
    ratios.push_back(a.wall / b.wall);
  }
  for (Row* row : {&one, &other}) row->work = forward_work(s);
  one.counters["over_dynamic"] = median(ratios);
  results.rows.push_back(std::move(one));
  results.rows.push_back(std::move(other));
}

template <int Rank, class Base>
void same_sizes(const char* name, const Base& base, Index tokens, Results& results) {
  const lowrank::LoraOptions options{.rank = Rank, .alpha = 16};
  const auto x = benchmarks::random_matrix<Activation<float>>(base.in_features(), tokens, 2);
  pair_rows(name, lowrank::LoraLinear<Base, Rank>{base, options}, lowrank::LoraLinear<Base>{base, options}, x, x, results);
}

template <int D, int Rank, int Tokens>
void all_static(Results& results) {
  using FixedLinear = lowrank::Linear<float, D, D>;
  const auto w = benchmarks::random_matrix<Weight<float>>(D, D, 1);
  const lowrank::LoraOptions options{.rank = Rank, .alpha = 16};
  const lowrank::LoraLinear<FixedLinear, Rank> fixed{FixedLinear(Weight<float, D, D>(w)), options};
  const lowrank::LoraLinear<lowrank::Linear<float>> dynamic{lowrank::Linear<float>(w), options};
  const auto x = benchmarks::random_matrix<Activation<float>>(D, Tokens, 2);
  const Eigen::Matrix<float, D, Tokens> fixed_x = x;
  pair_rows("fp32", fixed, dynamic, fixed_x, x, results);
}

}  // namespace

void measure_static(const Options& options, Budget budget, Results& results) {
  all_static<32, 4, 1>(results);
  all_static<64, 8, 1>(results);
  all_static<64, 8, 8>(results);
  for (const Index d : options.sizes) {
    if (d > 2048) continue;  // more of the same work hides what is not the same
    const auto w = benchmarks::random_matrix<Weight<float>>(d, d, 1);
    const lowrank::QuantizedLinear nf4{lowrank::quantize<lowrank::Nf4<64>>(w)};
    const lowrank::Linear<float> fp32{w};
    for (const Index tokens : {1, 64}) {
      if (budget.is_spent()) return results.skipped.push_back(lowrank::concat("static rank, layer of ", d, ", T = ", tokens));
      same_sizes<4>("fp32", fp32, tokens, results);
      same_sizes<64>("fp32", fp32, tokens, results);
      same_sizes<4>("nf4", nf4, tokens, results);
      same_sizes<64>("nf4", nf4, tokens, results);
    }
  }
}

}  // namespace rank_tradeoff
