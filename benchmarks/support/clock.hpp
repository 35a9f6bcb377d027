#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace benchmarks {

inline double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Seconds that a call takes.
template <class Call>
double time_of(const Call& call) {
  const double start = seconds();
  call();
  return seconds() - start;
}

inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

}  // namespace benchmarks
