#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
LOWRANK_INLINE void check_density(const char* operation, double density) {
  check<ValueError>(is_finite(density) && density > 0 && density <= 1, operation, "density = ", density, "; it must lie in (0, 1]");
}

}  // namespace detail

LOWRANK_INLINE void keep_largest(Weight<float>& m, double density) {
  detail::check_density("keep_largest", density);
  const auto kept = static_cast<Index>(density * static_cast<double>(m.size()));
  if (kept >= m.size()) return;
  std::vector<Index> order(static_cast<std::size_t>(m.size()));
  std::iota(order.begin(), order.end(), Index{0});
  const float* values = m.data();
  std::nth_element(order.begin(), order.begin() + kept, order.end(), [&](Index i, Index j) {
    const float x = std::abs(values[i]), y = std::abs(values[j]);
    return x > y || (x == y && i < j);
  });
  for (auto i = order.begin() + kept; i != order.end(); ++i) m.data()[*i] = 0;
}

LOWRANK_INLINE void keep_random(Weight<float>& m, double density, const Random& random) {
  detail::check_density("keep_random", density);
  const auto factor = static_cast<float>(1 / density);
  for (Index i = 0; i < m.size(); ++i) {
    const bool kept = static_cast<double>(random.uniform_at(static_cast<std::uint64_t>(i))) < density;
    m.data()[i] = kept ? factor * m.data()[i] : 0;
  }
}

LOWRANK_INLINE Weight<float> merge_elected(std::span<const Weight<float>> tasks, std::span<const double> weights,
                                           std::span<const double> voices, SignVote vote) {
  Weight<float> merged = Weight<float>::Zero(tasks.front().rows(), tasks.front().cols());
  const auto sign = [](double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; };
  for (Index i = 0; i < merged.size(); ++i) {
    double votes = 0, sum = 0;
    int count = 0;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const double x = voices[t] * static_cast<double>(tasks[t].data()[i]);
      votes += vote == SignVote::total ? x : sign(x);
    }
    const int elected = votes >= 0 ? 1 : -1;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const auto x = static_cast<double>(tasks[t].data()[i]);
      if (sign(voices[t] * x) != elected) continue;
      sum += weights[t] * x;
      ++count;
    }
    merged.data()[i] = static_cast<float>(sum / std::max(1, count));
  }
  return merged;
}

}  // namespace lowrank::inline LOWRANK_ABI
