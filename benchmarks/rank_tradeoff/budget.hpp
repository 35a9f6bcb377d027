#pragma once

/// Time that a part of the run may take. What does not fit is left out and named; nothing runs past it by more than one measurement.

#include <algorithm>
#include <ctime>
#include <vector>

#include <support/clock.hpp>

namespace rank_tradeoff {

class Budget {
 public:
  explicit Budget(double length) : end_(benchmarks::seconds() + length) {}
  double left() const { return end_ - benchmarks::seconds(); }
  bool is_spent() const { return left() <= 0; }
  /// A share of what is left, for a piece of so much work out of the work that is still to do.
  Budget slice(double work, double work_left) const { return Budget(std::max(0.0, left()) * (work_left > 0 ? work / work_left : 1)); }

 private:
  double end_;
};

/// Wall and processor time of a call, divided by the number of things it did.
struct Sample {
  double wall = 0, cpu = 0;
};

inline double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Call>
Sample sample(int count, const Call& call) {
  const double cpu = processor_seconds(), start = benchmarks::seconds();
  for (int i = 0; i < count; ++i) call();
  const double wall = benchmarks::seconds() - start;
  return {wall / count, (processor_seconds() - cpu) / count};
}

}  // namespace rank_tradeoff
