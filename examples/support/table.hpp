#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// printf into a string.
template <class... Values>
std::string format(const char* pattern, Values... values) {
  const int size = std::snprintf(nullptr, 0, pattern, values...);
  std::string text(static_cast<std::size_t>(size) + 1, '\0');
  std::snprintf(text.data(), text.size(), pattern, values...);
  text.pop_back();
  return text;
}

/// Characters of a text in UTF-8: bytes that do not continue one.
inline std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// A table with aligned columns: the first to the left, numbers to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  void print(std::FILE* out = stdout) const {
    std::vector<std::size_t> widths(rows_.front().size());
    for (const auto& row : rows_)
      for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      std::string line = "  ";
      for (std::size_t i = 0; i < rows_[r].size(); ++i) {
        const std::string padding(widths[i] - width(rows_[r][i]), ' ');
        line += i == 0 ? rows_[r][i] + padding : "  " + padding + rows_[r][i];
      }
      std::fprintf(out, "%s\n", line.substr(0, line.find_last_not_of(' ') + 1).c_str());
      if (r > 0) continue;
      std::size_t total = 2 * (widths.size() - 1);
      for (const std::size_t w : widths) total += w;
      std::fprintf(out, "  %s\n", std::string(total, '-').c_str());
    }
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace support
