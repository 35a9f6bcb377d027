#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/types.hpp>

namespace transformer {

using lowrank::Index;

/// Reads a table of separated values row by row (RFC 4180): a cell in quotes may hold separators, newlines and, doubled, quotes.
///
/// Outside quotes a quote is a character like any other, as in tables separated by tabs. Lines end in LF or CR LF; empty lines are no rows.
class CsvReader {
 public:
  CsvReader(std::string_view text, char separator, std::string name) : text_(text), separator_(separator), name_(std::move(name)) {}

  /// The next row, or none at the end. Throws FormatError for a quote that is not closed, or not followed by a separator.
  std::vector<std::string> next();

  /// The line in which the row began that next() gave, from 1.
  Index line() const { return row_line_; }

 private:
  std::string cell();
  std::string quoted_cell();
  bool at_line_end() const;
  void end_line();

  std::string_view text_;
  char separator_;
  std::string name_;
  std::size_t position_ = 0;
  Index line_ = 1, row_line_ = 1;
};

}  // namespace transformer
