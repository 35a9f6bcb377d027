#pragma once

#include <algorithm>
#include <utility>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::string_view without_operation(std::string_view text) { return text.substr(text.find("] ") + 2); }

LOWRANK_INLINE PathPattern::PathPattern(std::string pattern, std::string_view field) : pattern_(std::move(pattern)) {
  if (!std::all_of(pattern_.begin(), pattern_.end(), is_plain)) compile(pattern_, field);
}

LOWRANK_INLINE PathPattern PathPattern::ending(std::string key, std::string_view field) {
  PathPattern pattern(std::move(key), field);  // on its own first: "a)(b" is no expression, though it would be one in parentheses
  if (pattern.expression_) pattern.compile("(?:.*\\.)?(?:" + pattern.pattern_ + ")", field);
  pattern.is_ending_ = true;
  return pattern;
}

LOWRANK_INLINE bool PathPattern::matches(std::string_view path) const {
  if (expression_) return expression_->matches(path);
  if (is_ending_ && path.size() > pattern_.size()) {
    path.remove_prefix(path.size() - pattern_.size() - 1);
    if (path.front() != '.') return false;
    path.remove_prefix(1);
  }
  return std::equal(pattern_.begin(), pattern_.end(), path.begin(), path.end(), [](char p, char c) { return p == '.' || p == c; });
}

LOWRANK_INLINE void PathPattern::compile(std::string_view expression, std::string_view field) {
  try {
    expression_.emplace(expression);
  } catch (const ValueError& error) {
    fail<ValueError>("path_pattern", field, ": ", without_operation(error.what()));
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
