#pragma once

/// Which differences are more than chance: Mann and Whitney's U, Holm's correction, Hodges and Lehmann's shift, Student's intervals.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace rank_tradeoff {

/// Number of pairs (a, b) with a < b, ties counted half: U of the second sample.
inline double mann_whitney_u(const std::vector<double>& a, const std::vector<double>& b) {
  double u = 0;
  for (const double x : a)
    for (const double y : b) u += x < y ? 1 : x == y ? 0.5 : 0;
  return u;
}

/// How many of the C(n + m, n) orders of two samples give each U, 0 … n m; as a share of all.
inline std::vector<double> u_distribution(std::size_t n, std::size_t m) {
  // Gaussian binomial coefficient: multiply by (1 - q^(m + i)), divide by (1 - q^i), i = 1 … n.
  std::vector<double> shares(n * m + 1);
  shares[0] = 1;
  for (std::size_t i = 1; i <= n; ++i) {
    for (std::size_t u = n * m; u + 1 > m + i; --u) shares[u] -= shares[u - m - i];
    for (std::size_t u = i; u <= n * m; ++u) shares[u] += shares[u - i];
  }
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= total;
  return shares;
}

/// Probability, if both samples come from one distribution, of a U at least as far from the middle (two-sided).
///
/// Exact for samples of up to 20 without ties, else by the normal distribution with corrections for ties and continuity. Mann and Whitney
/// 1947.
inline double mann_whitney_p(const std::vector<double>& a, const std::vector<double>& b) {
  const std::size_t n = a.size(), m = b.size();
  if (n == 0 || m == 0) return 1;
  const double u = mann_whitney_u(a, b), all = static_cast<double>(n * m), least = std::min(u, all - u);
  std::vector<double> joined(a);
  joined.insert(joined.end(), b.begin(), b.end());
  std::sort(joined.begin(), joined.end());
  double ties = 0;
  for (std::size_t i = 0, j; i < joined.size(); i = j) {
    for (j = i; j < joined.size() && joined[j] == joined[i];) ++j;
    const double t = static_cast<double>(j - i);
    ties += t * t * t - t;
  }
  if (ties == 0 && n <= 20 && m <= 20) {
    const auto shares = u_distribution(n, m);
    const auto end = shares.begin() + static_cast<std::ptrdiff_t>(least) + 1;
    return std::min(1.0, 2 * std::accumulate(shares.begin(), end, 0.0));
  }
  const double count = static_cast<double>(n + m);
  const double variance = all / 12 * (count + 1 - ties / (count * (count - 1)));
  if (variance <= 0) return 1;
  const double z = std::max(0.0, all / 2 - least - 0.5) / std::sqrt(variance);
  return std::erfc(z / std::sqrt(2.0));
}

/// Holm's adjusted p-values: with k tests, the i-th smallest times k - i + 1, never less than one before it. Holm 1979.
inline std::vector<double> holm(const std::vector<double>& p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return p[i] < p[j]; });
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, std::min(1.0, p[order[i]] * static_cast<double>(p.size() - i)));
    adjusted[order[i]] = largest;
  }
  return adjusted;
}

struct Interval {
  double center = 0, low = 0, high = 0;
};

/// b / a: the median of all quotients (Hodges and Lehmann 1963, on logarithms), and the interval that Mann and Whitney's test of level
/// alpha would not reject; by the normal approximation of U.
inline Interval ratio_interval(const std::vector<double>& a, const std::vector<double>& b, double alpha = 0.05) {
  std::vector<double> quotients;
  for (const double x : a)
    for (const double y : b) quotients.push_back(y / x);
  std::sort(quotients.begin(), quotients.end());
  if (quotients.empty()) return {};
  const double n = static_cast<double>(a.size()), m = static_cast<double>(b.size());
  // The z of a two-sided alpha, by bisection of erfc.
  double low = 0, high = 40;
  for (int i = 0; i < 80; ++i) (std::erfc((low + high) / 2 / std::sqrt(2.0)) > alpha ? low : high) = (low + high) / 2;
  const double reach = low * std::sqrt(n * m * (n + m + 1) / 12);
  const auto first = static_cast<std::size_t>(std::max(0.0, std::floor(n * m / 2 - reach)));
  const std::size_t half = quotients.size() / 2;
  return {(quotients[(quotients.size() - 1) / 2] + quotients[half]) / 2, quotients[std::min(first, half)],
          quotients[quotients.size() - 1 - std::min(first, half)]};
}

/// Mean and Student's 95 % interval; of one number no interval is known, and it is infinite.
inline Interval student_interval(const std::vector<double>& values) {
  constexpr double quantiles[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262};  // 1 … 9 degrees of freedom
  if (values.empty()) return {NAN, NAN, NAN};
  const double n = static_cast<double>(values.size()), mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return {mean, -INFINITY, INFINITY};
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  const double t = values.size() <= 10 ? quantiles[values.size() - 2] : 1.96 + 2.4 / (n - 1);
  const double half = t * std::sqrt(squares / (n - 1) / n);
  return {mean, mean - half, mean + half};
}

}  // namespace rank_tradeoff
