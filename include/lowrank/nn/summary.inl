#pragma once

#include <algorithm>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::string detail::summary_text(std::vector<SummaryRow> rows, const LayerSize& total) {
  rows.insert(rows.begin(), SummaryRow{"name", "shape", "format", "trainable", "of", "bytes"});
  rows.push_back({"total", "", "", std::to_string(total.trainable), std::to_string(total.parameters), bytes_text(total.bytes)});
  constexpr std::size_t first_number = 3;
  std::array<std::size_t, std::tuple_size_v<SummaryRow>> widths{};
  for (const SummaryRow& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const SummaryRow& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - row[i].size(), ' ');
      line += (i > 0 ? "  " : "") + (i < first_number ? row[i] + space : space + row[i]);
    }
    text += line + '\n';
  }
  return text;
}

}  // namespace lowrank::inline LOWRANK_ABI
