#include <transformer/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <lowrank/error.hpp>

namespace transformer {

Sampler::Sampler(SamplerOptions options) : options_(options), random_(options.seed, 0x73616d70) {
  using lowrank::ValueError;
  lowrank::check<ValueError>(options.temperature >= 0 && std::isfinite(options.temperature), "sampler", "temperature is ",
                             options.temperature, "; give 0 (greedy) or more");
  lowrank::check<ValueError>(options.top_k >= 0, "sampler", "top-k is ", options.top_k, "; give 0 (all) or more");
  lowrank::check<ValueError>(options.top_p > 0 && options.top_p <= 1, "sampler", "top-p is ", options.top_p, "; give a share in (0, 1]");
}

std::int32_t Sampler::operator()(const lowrank::Column<float>& logits) {
  Index best = 0;
  const float largest = logits.maxCoeff(&best);
  if (options_.temperature == 0) return static_cast<std::int32_t>(best);

  std::vector<std::int32_t> order(static_cast<std::size_t>(logits.size()));
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](std::int32_t a, std::int32_t b) { return logits(a) != logits(b) ? logits(a) > logits(b) : a < b; };
  if (options_.top_k > 0 && options_.top_k < logits.size()) {
    std::nth_element(order.begin(), order.begin() + options_.top_k, order.end(), more_likely);
    order.resize(static_cast<std::size_t>(options_.top_k));
  }
  std::sort(order.begin(), order.end(), more_likely);
  std::vector<double> weights;
  for (const std::int32_t id : order) weights.push_back(std::exp(static_cast<double>((logits(id) - largest) / options_.temperature)));
  return order[draw(weights)];
}

std::size_t Sampler::draw(const std::vector<double>& weights) {
  const double kept_sum = options_.top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t kept = 0;
  double sum = 0;
  while (kept < weights.size() && (kept == 0 || sum < kept_sum)) sum += weights[kept++];
  double point = random_.uniform() * sum;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    if (point < weights[i]) return i;
    point -= weights[i];
  }
  return kept - 1;
}

}  // namespace transformer
