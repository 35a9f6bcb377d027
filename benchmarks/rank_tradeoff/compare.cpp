#include <cstdio>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include <lowrank/error.hpp>

#include <support/table.hpp>

#include <rank_tradeoff/options.hpp>
#include <rank_tradeoff/statistics.hpp>

// Two runs, row by row. Only what the repetitions can show is called a difference.

namespace rank_tradeoff {
namespace {

using Times = std::map<std::string, std::vector<double>>;

/// The times of all repetitions by name, in nanoseconds.
Times read_times(const std::filesystem::path& file) {
  std::ifstream stream(file);
  lowrank::check<lowrank::IoError>(stream.is_open(), "compare", "cannot open ", file, "; give the rank_tradeoff.json of a run");
  const auto json = nlohmann::json::parse(stream, nullptr, false);
  lowrank::check<lowrank::FormatError>(!json.is_discarded() && json.contains("benchmarks"), "compare", file,
                                       " is not the JSON of a benchmark: it has no \"benchmarks\"");
  const std::map<std::string, double> units{{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  Times times;
  for (const auto& entry : json["benchmarks"]) {
    if (entry.value("run_type", "") != "iteration") continue;
    const double time = entry.value("real_time", 0.0) * units.at(entry.value("time_unit", "ns"));
    if (time > 0) times[entry.value("run_name", entry.value("name", ""))].push_back(time);
  }
  return times;
}

}  // namespace

int compare(const std::filesystem::path& before, const std::filesystem::path& after, double alpha) {
  const Times first = read_times(before), second = read_times(after);
  std::vector<std::string> names;
  std::vector<double> p;
  for (const auto& [name, times] : first) {
    const auto found = second.find(name);
    if (found == second.end()) continue;
    names.push_back(name);
    p.push_back(mann_whitney_p(times, found->second));
  }
  const std::vector<double> adjusted = holm(p);
  support::Table table({"row", "before, us", "after, us", "ratio", "95 % interval", "p (Holm)", "runs"});
  int differ = 0, hopeless = 0;
  std::vector<double> ratios;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto &a = first.at(names[i]), &b = second.at(names[i]);
    const Interval ratio = ratio_interval(a, b);
    ratios.push_back(ratio.center);
    // The least p that so few repetitions can give: all of one run below all of the other.
    std::vector<double> low(a.size()), high(b.size());
    for (std::size_t k = 0; k < low.size(); ++k) low[k] = static_cast<double>(k);
    for (std::size_t k = 0; k < high.size(); ++k) high[k] = static_cast<double>(low.size() + k);
    hopeless += mann_whitney_p(low, high) * static_cast<double>(names.size()) > alpha;
    if (adjusted[i] > alpha) continue;
    ++differ;
    table.add({names[i], support::format("%.1f", 1e-3 * median(a)), support::format("%.1f", 1e-3 * median(b)),
               support::format("%.3f", ratio.center), support::format("%.3f to %.3f", ratio.low, ratio.high),
               support::format("%.1e", adjusted[i]), support::format("%zu + %zu", a.size(), b.size())});
  }
  if (differ > 0) table.print();
  std::printf(
      "%zu rows in both, %d differ at level %g (Mann and Whitney's test, Holm's correction), %zu do not; median of all ratios %.3f\n",
      names.size(), differ, alpha, names.size() - static_cast<std::size_t>(differ), median(ratios));
  if (hopeless > 0)
    std::printf("%d rows have too few repetitions to differ significantly whatever their times; run longer (--budget)\n", hopeless);
  const std::size_t alone = first.size() + second.size() - 2 * names.size();
  if (alone > 0) std::printf("%zu rows are in one run only\n", alone);
  return differ;
}

}  // namespace rank_tradeoff
