#pragma once

/// Pieces of the report: tables and figures, without scripts.

#include <cmath>
#include <initializer_list>
#include <string>
#include <vector>

#include <support/plot.hpp>

#include <rank_tradeoff/explain.hpp>
#include <rank_tradeoff/row.hpp>
#include <rank_tradeoff/text.hpp>

namespace rank_tradeoff {

using support::format;

/// A table that scrolls sideways by itself where the page is narrow. The first column is text, the others are numbers.
class HtmlTable {
 public:
  explicit HtmlTable(const std::vector<std::string>& head) {
    text_ = "<div class=\"wide\"><table><thead><tr>";
    for (const auto& cell : head) text_ += "<th>" + html_text(cell) + "</th>";
    text_ += "</tr></thead><tbody>\n";
  }
  void add(const std::vector<std::string>& row, const char* kind = "") {
    text_ += *kind ? format("<tr class=\"%s\">", kind) : "<tr>";
    for (const auto& cell : row) text_ += "<td>" + html_text(cell) + "</td>";
    text_ += "</tr>\n";
    ++rows_;
  }
  int rows() const { return rows_; }
  std::string str() const { return text_ + "</tbody></table></div>\n"; }

 private:
  std::string text_;
  int rows_ = 0;
};

inline std::string paragraph(const std::string& text) { return "<p>" + html_text(text) + "</p>\n"; }
inline std::string heading(const std::string& text) { return "<h2>" + html_text(text) + "</h2>\n"; }
inline std::string details(const std::string& summary, const std::string& html) {
  return "<details><summary>" + html_text(summary) + "</summary>\n" + html + "</details>\n";
}
inline std::string figures(const std::vector<support::Plot>& plots) {
  std::string html = "<div class=\"figures\">\n";
  for (const auto& plot : plots)
    if (!plot.empty()) html += "<figure>" + plot.svg() + "</figure>\n";
  return html + "</div>\n";
}

inline std::string number(double value, const char* pattern = "%.2f") {
  return std::isnan(value) ? "–" : std::isinf(value) ? (value > 0 ? "∞" : "−∞") : format(pattern, value);
}
inline std::string bytes_text(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB"};
  int unit = 0;
  for (; std::abs(bytes) >= 1024 && unit < 3; ++unit) bytes /= 1024;
  return format(unit ? "%.3g %s" : "%.0f %s", bytes, units[unit]);
}
inline std::string integer(Index value) { return std::to_string(value); }

std::string speed_html(const Results& results);
std::string overhead_svg(const Results& results);  ///< forward at the largest size and fewest tokens; empty without such rows
std::string quality_html(const Results& results);
std::vector<std::string> lessons(const Results& results);  ///< what to take from the run, in sentences with its numbers
std::vector<std::string> quality_lessons(const Results& results);

}  // namespace rank_tradeoff
