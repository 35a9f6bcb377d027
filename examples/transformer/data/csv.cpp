#include <transformer/data/csv.hpp>

#include <algorithm>

#include <lowrank/error.hpp>

namespace transformer {

std::vector<std::string> CsvReader::next() {
  while (position_ < text_.size() && at_line_end()) end_line();
  row_line_ = line_;
  std::vector<std::string> cells;
  if (position_ == text_.size()) return cells;
  for (;;) {
    cells.push_back(cell());
    if (position_ == text_.size()) return cells;
    if (at_line_end()) {
      end_line();
      return cells;
    }
    ++position_;  // the separator
  }
}

std::string CsvReader::cell() {
  if (position_ < text_.size() && text_[position_] == '"') return quoted_cell();
  const std::size_t begin = position_;
  while (position_ < text_.size() && text_[position_] != separator_ && !at_line_end()) ++position_;
  return std::string(text_.substr(begin, position_ - begin));
}

std::string CsvReader::quoted_cell() {
  const Index begin = line_;
  std::string value;
  for (;;) {
    const std::size_t quote = text_.find('"', ++position_);
    lowrank::check<lowrank::FormatError>(quote != std::string_view::npos, "data", name_, " line ", begin,
                                         ": a quote is not closed; write \" inside a quoted cell twice");
    value += text_.substr(position_, quote - position_);
    position_ = quote + 1;
    if (position_ == text_.size() || text_[position_] != '"') break;
    value += '"';
  }
  line_ += static_cast<Index>(std::count(value.begin(), value.end(), '\n'));
  lowrank::check<lowrank::FormatError>(position_ == text_.size() || text_[position_] == separator_ || at_line_end(), "data", name_,
                                       " line ", line_,
                                       ": a closing quote is followed by more of the cell; write \" inside a quoted cell twice");
  return value;
}

bool CsvReader::at_line_end() const { return text_[position_] == '\n' || text_.substr(position_).starts_with("\r\n"); }

void CsvReader::end_line() {
  position_ += text_[position_] == '\n' ? 1 : 2;
  ++line_;
}

}  // namespace transformer
