#pragma once

#include <CLI/CLI.hpp>

#include <lowrank/adapters/spectrum.hpp>

#include <cli/report.hpp>

namespace cli {

/// Adds `combine`, `resize` and `extract` to the command `adapter`.
void add_adapter_algebra(CLI::App& adapter);

/// A layer's rank advice as table cells, and as JSON.
inline std::vector<std::string> advice_cells(const lowrank::RankAdvice& advice) {
  return {format("%.4g", advice.norm), format("%.1f", advice.effective), std::to_string(advice.rank_90), std::to_string(advice.rank_95),
          std::to_string(advice.rank_99)};
}
inline nlohmann::ordered_json advice_json(const lowrank::RankAdvice& advice) {
  return {{"update_norm", advice.norm},
          {"effective_rank", advice.effective},
          {"rank_90", advice.rank_90},
          {"rank_95", advice.rank_95},
          {"rank_99", advice.rank_99}};
}

}  // namespace cli
