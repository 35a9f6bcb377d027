#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// One step of an expression's program. Jumps are relative: a fork goes to `first` and `second` steps from itself.
struct RegexStep {
  enum class Operation : std::uint8_t { any_of, fork, jump, begin, end, word_edge, no_word_edge, look, look_not, accept };
  Operation operation;
  std::int32_t first = 1, second = 1;
  std::uint32_t index = 0;  // into sets or looks
};
using RegexProgram = std::vector<RegexStep>;

/// An expression as a program for threads that all advance together.
struct Regex {
  std::vector<std::bitset<256>> sets = {};
  std::vector<RegexProgram> looks = {};
  RegexProgram program = {};
};

}  // namespace detail

/// A regular expression in Python's syntax, matched in linear time whatever the expression: all paths through it advance together, one
/// character at a time (Thompson 1968, "Regular expression search algorithm").
///
/// Knows characters, `.`, classes `[a-z]`, `\d` `\w` `\s` and their negations, `^` `$` `\A` `\Z` `\b` `\B`, groups (also named), `|`, `*`
/// `+` `?`
/// `{m,n}` greedy or lazy, look-ahead `(?=…)` `(?!…)`. Refuses back-references, look-behind and flags with ValueError, as it does
/// expressions that are malformed, nested more than 32 deep or larger than 4096 steps. Characters are bytes.
class RegularExpression {
 public:
  explicit RegularExpression(std::string_view text);

  /// Whether the whole subject matches, as re.fullmatch. Subjects of more than 1024 bytes never do.
  bool matches(std::string_view subject) const;

 private:
  detail::Regex regex_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/regular_expression.inl>
#endif
