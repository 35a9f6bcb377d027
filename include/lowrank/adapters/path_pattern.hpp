#pragma once

#include <algorithm>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A regular expression for whole module paths, as Python's re.fullmatch reads it.
///
/// Names with dots (where "." is any character) are compared directly. The rest is std::regex, guarded: hostile patterns cannot take
/// exponential time (breadth-first matching, where libstdc++ has it) or exhaust the stack (length, nesting and repetition are limited).
/// Throws ValueError for expressions outside these limits or that ECMAScript does not know, such as look-behind.
class PathPattern {
 public:
  PathPattern(std::string pattern, std::string_view field) : pattern_(std::move(pattern)) {
    if (!std::all_of(pattern_.begin(), pattern_.end(), is_plain)) regex_ = compile(pattern_, field);
  }

  /// The expression `(.*\.)?(KEY)`: a path, or what follows one of its dots.
  static PathPattern ending(std::string key, std::string_view field) {
    PathPattern pattern(std::move(key), field);  // on its own first: "a)(b" is no expression, though it would be one in parentheses
    if (pattern.regex_) pattern.regex_ = compile("(?:.*\\.)?(?:" + pattern.pattern_ + ")", field);
    pattern.ending_ = true;
    return pattern;
  }

  bool matches(std::string_view path) const {
    if (regex_) return path.size() <= 1024 && std::regex_match(path.begin(), path.end(), *regex_);
    if (ending_ && path.size() > pattern_.size()) {
      path.remove_prefix(path.size() - pattern_.size() - 1);
      if (path.front() != '.') return false;
      path.remove_prefix(1);
    }
    return std::equal(pattern_.begin(), pattern_.end(), path.begin(), path.end(), [](char p, char c) { return p == '.' || p == c; });
  }

 private:
#ifdef __GLIBCXX__
  static constexpr auto flags = std::regex::ECMAScript | std::regex::nosubs | std::regex_constants::__polynomial;
#else
  static constexpr auto flags = std::regex::ECMAScript | std::regex::nosubs;
#endif

  static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  }

  static std::regex compile(const std::string& pattern, std::string_view field) {
    const std::string shown = '"' + pattern.substr(0, 80) + '"';
    check<ValueError>(pattern.size() * repetitions(pattern) <= 4096 && nesting(pattern) <= 32, "path_pattern", field,
                      ": the regular expression ", shown, " is too long or too deeply nested; name the modules instead");
    try {
      return std::regex(without_names(pattern), flags);
    } catch (const std::regex_error& error) {
      fail<ValueError>("path_pattern", field, ": ", shown, " is no regular expression that can be read here (", error.what(),
                       "); name the modules instead");
    }
  }

  /// The largest product of the counts in braces, which multiply the expression's states.
  static std::size_t repetitions(std::string_view pattern) {
    std::size_t product = 1;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
      if (pattern[i] != '{') continue;
      std::size_t largest = 1, number = 0;
      for (++i; i < pattern.size() && pattern[i] != '}'; ++i) {
        number = pattern[i] >= '0' && pattern[i] <= '9'
                     ? std::min<std::size_t>(number * 10 + static_cast<std::size_t>(pattern[i] - '0'), 5000)
                     : 0;
        largest = std::max(largest, number);
      }
      product = std::min<std::size_t>(product * largest, 5000);
    }
    return product;
  }

  static int nesting(std::string_view pattern) {
    int depth = 0, deepest = 0;
    for (const char c : pattern) {
      if (c == '(') deepest = std::max(deepest, ++depth);
      if (c == ')') --depth;
    }
    return deepest;
  }

  /// Python's "(?P<name>" as "(".
  static std::string without_names(std::string text) {
    for (std::size_t at = 0; (at = text.find("(?P<", at)) != std::string::npos;) {
      const auto end = text.find('>', at);
      if (end == std::string::npos) break;
      text.erase(at + 1, end - at);
    }
    return text;
  }

  std::string pattern_;
  std::optional<std::regex> regex_;
  bool ending_ = false;
};

}  // namespace lowrank::inline LOWRANK_ABI
