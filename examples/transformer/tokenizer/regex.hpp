#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace transformer {

/// A compiled PCRE2 pattern with Unicode properties; copies share it, and threads may match at once.
///
/// It is spelled as in the tokenizers world (Oniguruma), which differs from PCRE2 in three classes: \s is White_Space (PCRE2 adds U+180E),
/// \w has marks, decimal digits and connectors (PCRE2 10.42 has all numbers and the low line), \h is a hexadecimal digit. What has no equal
/// (class intersection, nested classes, possessive intervals, \K, \G, \X, \R, \y, verbs) is refused rather than split texts in another way.
class Pattern {
 public:
  enum class Kind { regex, literal };

  /// Throws FormatError for what has no equal, and with PCRE2's own words when the pattern is not valid.
  explicit Pattern(std::string_view pattern, Kind kind = Kind::regex);

  const std::string& text() const { return text_; }

  /// Calls visit(begin, end) for every match from left to right. `subject` must be valid UTF-8. Throws ValueError at PCRE2's limits.
  void for_each_match(std::string_view subject, const std::function<void(std::size_t, std::size_t)>& visit) const;

 private:
  std::string text_;
  std::shared_ptr<void> code_;  // pcre2_code
};

}  // namespace transformer
