#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include <lowrank/adapters/regular_expression.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The text of an error without the bracketed operation that it begins with, to quote it in another error.
inline std::string_view without_operation(std::string_view text) { return text.substr(text.find("] ") + 2); }

/// An expression for module paths, as in target_modules or rank_pattern. Names with dots, where "." is any character, are compared
/// directly; the rest is a RegularExpression. Throws ValueError naming the field for expressions that cannot be read.
class PathPattern {
 public:
  /// Matches whole paths.
  PathPattern(std::string pattern, std::string_view field) : pattern_(std::move(pattern)) {
    if (!std::all_of(pattern_.begin(), pattern_.end(), is_plain)) compile(pattern_, field);
  }

  /// The expression `(.*\.)?(KEY)`: a path, or what follows one of its dots.
  static PathPattern ending(std::string key, std::string_view field) {
    PathPattern pattern(std::move(key), field);  // on its own first: "a)(b" is no expression, though it would be one in parentheses
    if (pattern.expression_) pattern.compile("(?:.*\\.)?(?:" + pattern.pattern_ + ")", field);
    pattern.is_ending_ = true;
    return pattern;
  }

  bool matches(std::string_view path) const {
    if (expression_) return expression_->matches(path);
    if (is_ending_ && path.size() > pattern_.size()) {
      path.remove_prefix(path.size() - pattern_.size() - 1);
      if (path.front() != '.') return false;
      path.remove_prefix(1);
    }
    return std::equal(pattern_.begin(), pattern_.end(), path.begin(), path.end(), [](char p, char c) { return p == '.' || p == c; });
  }

 private:
  static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  }
  void compile(std::string_view expression, std::string_view field) {
    try {
      expression_.emplace(expression);
    } catch (const ValueError& error) {
      fail<ValueError>("path_pattern", field, ": ", without_operation(error.what()));
    }
  }

  std::string pattern_;
  std::optional<RegularExpression> expression_;
  bool is_ending_ = false;
};

}  // namespace lowrank::inline LOWRANK_ABI
