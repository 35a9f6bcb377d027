// Chapter 7: merging an update makes it free and final; keeping it apart costs 2 r (m + n) operations a token and can be swapped.
#include <chrono>
#include <cstring>
#include <map>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>

#include <support/chapter.hpp>

using lowrank::Activation;
using lowrank::Index;
using lowrank::Weight;
using Layer = lowrank::LoraLinear<lowrank::Linear<float>>;

constexpr Index n_in = 1024, n_out = 768;

double seconds_of(const auto& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Median times of two calls that take turns, so that a busy machine slows both. Shown, not claimed: another machine, other numbers.
std::pair<double, double> times_of(const auto& one, const auto& other, int repetitions) {
  std::vector<double> first, second;
  for (int i = 0; i < repetitions; ++i) first.push_back(seconds_of(one)), second.push_back(seconds_of(other));
  const auto median = [](std::vector<double>& times) {
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    return times[times.size() / 2];
  };
  return {median(first), median(second)};
}

Layer adapted(const Weight<float>& w, Index rank, std::uint64_t seed) {
  Layer layer{lowrank::Linear{w}, {.rank = rank, .alpha = static_cast<double>(rank), .seed = seed}};
  layer.b().value = support::normal<Weight<float>>(n_out, rank, seed + 1, 0.05);
  return layer;
}

double difference(const Activation<float>& a, const Activation<float>& b) { return static_cast<double>((a - b).norm() / b.norm()); }

int main(int argc, char** argv) {
  support::Chapter chapter("7. Merge, keep, swap", argc, argv);
  const auto w = support::normal<Weight<float>>(n_out, n_in, 1, 0.03);
  const auto x = support::normal<Activation<float>>(n_in, 64, 2);

  // Cost of a token: 2 m n operations for W, 2 r (m + n) for the update. Merging costs 2 r m n once.
  const double per_rank = static_cast<double>(n_in + n_out) / static_cast<double>(n_in * n_out);
  std::map<Index, Layer> layers;
  for (const Index r : {1, 4, 16, 64}) layers.emplace(r, adapted(w, r, static_cast<std::uint64_t>(r)));
  const lowrank::Linear base{w};
  support::Plot plot("Time of a layer with an update, over the layer alone", "rank r", "times the base", {.log_x = true});
  std::vector<double> ranks, flops, many, single;
  support::Table table({"rank", "FLOPs", "64 tokens", "1 token", "merge, ms"});
  const Activation<float> token = x.leftCols(1);
  double base_many = 0, base_one = 0;
  for (auto& [r, layer] : layers) {
    const auto [bare_many, adapted_many] = times_of([&] { (void)base(x); }, [&, &one = layer] { (void)one(x); }, 51);
    const auto [bare_one, adapted_one] = times_of([&] { (void)base(token); }, [&, &one = layer] { (void)one(token); }, 501);
    const auto [merging, unmerging] = times_of([&one = layer] { merge(one); }, [&one = layer] { unmerge(one); }, 3);
    base_many = bare_many, base_one = bare_one;
    ranks.push_back(static_cast<double>(r)), flops.push_back(1 + static_cast<double>(r) * per_rank);
    many.push_back(adapted_many / bare_many), single.push_back(adapted_one / bare_one);
    table.add({support::format("%d", static_cast<int>(r)), support::format("%.3f", flops.back()), support::format("%.2f", many.back()),
               support::format("%.2f", single.back()), support::format("%.1f", 1e3 * merging)});
  }
  chapter.section("Cost of a kept update, as a multiple of a layer 1024 -> 768 without one (measured on this machine):");
  table.print();

  // Merging saves 2 r (m + n) operations a token, so it has paid for itself after m n / (m + n) tokens, whatever the rank.
  const double even = static_cast<double>(n_in * n_out) / static_cast<double>(n_in + n_out);
  for (const Index r : {Index{4}, Index{64}}) {
    Index count = 0;
    while (count * 2 * r * (n_in + n_out) < 2 * r * n_in * n_out) ++count;
    chapter.equal(support::format("rank %d: tokens until a merge has paid, ceil(mn / (m + n))", static_cast<int>(r)), std::ceil(even),
                  static_cast<double>(count));
  }

  // Merged equals unmerged, to rounding; taking it back returns the very bits, subtracting it does not.
  Layer& layer = layers.at(16);
  const Activation<float> kept = layer(x);
  merge(layer);
  chapter.at_most("merged - unmerged output, relative", 5e-6, difference(layer(x), kept));
  chapter.at_most("merged output over 1 token - base product of the merged weight", 0, difference(layer(token), layer.merged()(token)));
  unmerge(layer);
  const auto same = [&](const Weight<float>& a) {
    return std::memcmp(a.data(), w.data(), static_cast<std::size_t>(w.size()) * sizeof(float)) == 0;
  };
  chapter.claim("unmerge", "the base's bits", same(layer.base().weight().value) ? "the base's bits" : "other bits",
                same(layer.base().weight().value));
  const Weight<float> update = layer.scale() * layer.b().value * layer.a().value;
  Weight<float> drifting = w;
  for (int swap = 0; swap < 100; ++swap) drifting += update, drifting -= update;
  const double drift = static_cast<double>((drifting - w).norm() / w.norm());
  chapter.claim("adding and subtracting 100 times: drift", "> 0, < 1e-5", support::format("%.1e", drift), drift > 0 && drift < 1e-5);

  // A swap is another pointer: same base, other factors.
  const Layer *one = &layers.at(4), *other = &layers.at(64);
  const Layer* volatile active = one;  // volatile, or the compiler leaves the loop out
  const Activation<float> before = (*active)(x), expected = (*other)(x);
  const int swaps = 1'000'000;
  const double swapping = seconds_of([&] {
    for (int i = 0; i < swaps; ++i) active = i % 2 == 0 ? one : other;
  });
  active = other;
  chapter.at_most("output after a swap - output of that adapter", 0, difference((*active)(x), expected));
  active = one;
  chapter.at_most("and after swapping back", 0, difference((*active)(x), before));
  std::printf("\n  a swap: %.2f ns; base alone: %.2f ms for 64 tokens, %.3f ms for one\n", 1e9 * swapping / swaps, 1e3 * base_many,
              1e3 * base_one);

  plot.dashes("FLOPs", ranks, flops);
  plot.line("64 tokens", ranks, many);
  plot.line("1 token", ranks, single);
  chapter.picture("07_merge.svg", plot.svg());
  return chapter.finish();
}
