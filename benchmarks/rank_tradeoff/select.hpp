#pragma once

/// Finding rows again for tables and plots.

#include <algorithm>
#include <set>

#include <rank_tradeoff/predict.hpp>

namespace rank_tradeoff {

inline const Row* find(const Results& results, const std::string& part, const std::string& pass, const std::string& base,
                       const std::string& method, Index d, Index tokens, Index rank) {
  for (const Row& row : results.rows)
    if (row.part == part && row.pass == pass && row.base == base && row.method == method && row.d == d && row.tokens == tokens &&
        row.rank == rank)
      return &row;
  return nullptr;
}

/// One counter over the ranks.
struct Curve {
  std::vector<double> ranks, values;
};

inline Curve curve(const Results& results, const std::string& part, const std::string& pass, const std::string& base,
                   const std::string& method, Index d, Index tokens, const char* counter) {
  std::vector<std::pair<Index, double>> found;
  for (const Row& row : results.rows)
    if (row.part == part && row.pass == pass && row.base == base && row.method == method && row.d == d && row.tokens == tokens &&
        row.counters.count(counter))
      found.emplace_back(row.rank, row.counter(counter));
  std::sort(found.begin(), found.end());
  Curve result;
  for (const auto& [rank, value] : found) {
    result.ranks.push_back(static_cast<double>(rank));
    result.values.push_back(value);
  }
  return result;
}

/// The values of a column among the layers' rows, ascending.
template <class T>
std::vector<T> values_of(const Results& results, T Row::*member) {
  std::set<T> values;
  for (const Row& row : results.rows)
    if (row.part == "layer") values.insert(row.*member);
  return {values.begin(), values.end()};
}

/// Tokens after which merging has paid by the clock: its seconds over what a token costs more without it.
inline double measured_break_even(const Results& results, const std::string& base, Index d, Index tokens, Index rank) {
  const Row *merging = find(results, "merge", "merge", base, "lora", d, 0, rank),
            *adapted = find(results, "layer", "forward", base, "lora", d, tokens, rank),
            *merged = find(results, "layer", "forward", base, "merged", d, tokens, 0);
  if (!merging || !adapted || !merged) return NAN;
  const double more = merged->seconds() * (adapted->counter("over_merged") - 1) / static_cast<double>(tokens);
  return more > 0 ? merging->seconds() / more : INFINITY;
}

}  // namespace rank_tradeoff
