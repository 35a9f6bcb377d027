#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <lowrank/adapters/regular_expression.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The text of an error without the bracketed operation that it begins with, to quote it in another error.
std::string_view without_operation(std::string_view text);

/// An expression for module paths, as in target_modules or rank_pattern. Names with dots, where "." is any character, are compared
/// directly; the rest is a RegularExpression. Throws ValueError naming the field for expressions that cannot be read.
class PathPattern {
 public:
  /// Matches whole paths.
  PathPattern(std::string pattern, std::string_view field);

  /// The expression `(.*\.)?(KEY)`: a path, or what follows one of its dots.
  static PathPattern ending(std::string key, std::string_view field);

  bool matches(std::string_view path) const;

 private:
  static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  }
  void compile(std::string_view expression, std::string_view field);

  std::string pattern_;
  std::optional<RegularExpression> expression_;
  bool is_ending_ = false;
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/path_pattern.inl>
#endif
