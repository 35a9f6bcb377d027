#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A regular expression in Python's syntax, matched in linear time whatever the expression: all paths through it advance together, one
/// character at a time (Thompson 1968, "Regular expression search algorithm").
///
/// Knows characters, `.`, classes `[a-z]`, `\d` `\w` `\s` and their negations, `^` `$` `\A` `\Z` `\b` `\B`, groups (also named), `|`, `*`
/// `+` `?`
/// `{m,n}` greedy or lazy, look-ahead `(?=…)` `(?!…)`. Refuses back-references, look-behind and flags with ValueError, as it does
/// expressions that are malformed, nested more than 32 deep or larger than 4096 steps. Characters are bytes.
class RegularExpression {
 public:
  explicit RegularExpression(std::string_view text) : text_(text) {
    require(text.size() <= max_steps, "is too long; name the modules instead");
    program_ = alternatives(0);
    require(at_ == text_.size(), "has a ) too many");
    program_.push_back({.operation = Operation::accept});
    text_ = {};  // it was the caller's
  }

  /// Whether the whole subject matches, as re.fullmatch. Subjects of more than 1024 bytes never do.
  bool matches(std::string_view subject) const { return subject.size() <= 1024 && run(program_, subject, 0, true); }

 private:
  using Set = std::bitset<256>;
  enum class Operation : std::uint8_t { any_of, fork, jump, begin, end, word_edge, no_word_edge, look, look_not, accept };
  /// One step. Jumps are relative: a fork goes to `first` and `second` steps from itself.
  struct Step {
    Operation operation;
    std::int32_t first = 1, second = 1;
    std::uint32_t index = 0;  // into sets_ or looks_
  };
  using Program = std::vector<Step>;

  static constexpr std::size_t max_steps = 4096;
  static constexpr int max_depth = 32;

  // ---- reading the expression: recursive descent, each function returns the steps of what it read

  void require(bool condition, std::string_view problem) const {
    check<ValueError>(condition, "regular_expression", '"', text_.substr(0, 80), "\" ", problem);
  }
  bool done() const { return at_ == text_.size(); }
  bool take(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  char next(std::string_view inside) {
    require(!done(), concat("ends inside ", inside));
    return text_[at_++];
  }
  void append(Program& program, const Program& more) const {
    require(program.size() + more.size() < max_steps, "is too large; name the modules instead");
    program.insert(program.end(), more.begin(), more.end());
  }
  static std::int32_t length(const Program& program) { return static_cast<std::int32_t>(program.size()); }

  Program alternatives(int depth) {
    require(depth <= max_depth, "is nested too deeply");
    Program left = sequence(depth);
    while (take("|")) {
      const Program right = sequence(depth);
      Program both{{.operation = Operation::fork, .first = 1, .second = length(left) + 2}};
      append(both, left);
      append(both, {{.operation = Operation::jump, .first = length(right) + 1}});
      append(both, right);
      left = std::move(both);
    }
    return left;
  }

  Program sequence(int depth) {
    Program program;
    while (!done() && text_[at_] != '|' && text_[at_] != ')') append(program, repeated(depth));
    return program;
  }

  Program repeated(int depth) {
    std::size_t least = 0, most = 0;
    require(!counts(least, most), "repeats nothing");
    Program program = atom(depth);
    const bool is_assertion = program.size() == 1 && program[0].operation != Operation::any_of;
    for (bool again = false;; again = true) {
      least = 0;
      most = unlimited;
      if (take("*")) {
      } else if (take("+")) {
        least = 1;
      } else if (take("?")) {
        most = 1;
      } else if (!counts(least, most)) {
        return program;
      }
      require(!again && !is_assertion, "repeats a repetition or an assertion");
      take("?");  // lazy: the same when the whole must match
      program = repeat(program, least, most);
    }
  }

  static constexpr std::size_t unlimited = ~std::size_t{0};

  /// "{m}", "{m,}", "{,n}" or "{m,n}"; anything else after "{" is text, as in Python.
  bool counts(std::size_t& least, std::size_t& most) {
    const std::size_t close = text_.find('}', at_);
    if (done() || text_[at_] != '{' || close == std::string_view::npos) return false;
    const std::string_view inside = text_.substr(at_ + 1, close - at_ - 1);
    const std::size_t comma = inside.find(',');
    const std::string_view low = inside.substr(0, comma), high = comma == std::string_view::npos ? low : inside.substr(comma + 1);
    if (inside.empty() || inside.find_first_not_of("0123456789,") != std::string_view::npos || high.find(',') != std::string_view::npos)
      return false;
    require(low.size() <= 4 && high.size() <= 4, "repeats too often; name the modules instead");
    least = low.empty() ? 0 : std::stoul(std::string(low));
    most = high.empty() ? unlimited : std::stoul(std::string(high));
    require(least <= most, "has a repetition that ends before it begins");
    at_ = close + 1;
    return true;
  }

  Program repeat(const Program& once, std::size_t least, std::size_t most) const {
    Program program;
    for (std::size_t i = 0; i < least; ++i) append(program, once);
    if (most == unlimited) {
      append(program, {{.operation = Operation::fork, .first = 1, .second = length(once) + 2}});
      append(program, once);
      append(program, {{.operation = Operation::jump, .first = -length(once) - 1}});
      return program;
    }
    for (std::size_t i = least; i < most; ++i) {
      append(program, {{.operation = Operation::fork, .first = 1, .second = length(once) + 1}});
      append(program, once);
    }
    return program;
  }

  Program atom(int depth) {
    const char c = next("an expression");
    switch (c) {
      case '(':
        return group(depth + 1);
      case '[':
        return {any_of(bracket())};
      case '.':
        return {any_of(~Set().set('\n'))};
      case '^':
        return {{.operation = Operation::begin}};
      case '$':
        return {{.operation = Operation::end}};
      case '\\':
        return {escape()};
      case '*':
      case '+':
      case '?':
        require(false, "repeats nothing");
        [[fallthrough]];
      default:
        return {any_of(Set().set(static_cast<unsigned char>(c)))};
    }
  }

  Program group(int depth) {
    if (take("?")) {
      if (take("=")) return look(Operation::look, depth);
      if (take("!")) return look(Operation::look_not, depth);
      if (take("P<")) {
        while (next("a group's name") != '>') {
        }
      } else {
        require(take(":"), "uses a look-behind, a back-reference or a flag, which are not supported; name the modules instead");
      }
    }
    Program inside = alternatives(depth);
    require(take(")"), "has a ( without its )");
    return inside;
  }

  Program look(Operation operation, int depth) {
    require(!in_look_, "looks ahead inside a look-ahead, which is not supported; name the modules instead");
    in_look_ = true;
    Program inside = alternatives(depth);
    in_look_ = false;
    require(take(")"), "has a ( without its )");
    inside.push_back({.operation = Operation::accept});
    looks_.push_back(std::move(inside));
    require(looks_.size() <= 8, "looks ahead too often");
    return {{.operation = operation, .index = static_cast<std::uint32_t>(looks_.size() - 1)}};
  }

  Step any_of(const Set& set) {
    sets_.push_back(set);
    return {.operation = Operation::any_of, .index = static_cast<std::uint32_t>(sets_.size() - 1)};
  }

  static bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }
  static bool is_letter_or_digit(char c) { return is_word(c) && c != '_'; }

  /// The characters of `\d` `\w` `\s` and their negations, of \n and the like, or of an escaped sign.
  Set escaped(char c) const {
    Set set;
    for (int i = 0; i < 256; ++i) {
      const char x = static_cast<char>(i);
      const bool space = x == ' ' || (x >= '\t' && x <= '\r');
      if (c == 'd' || c == 'D') set[static_cast<std::size_t>(i)] = (x >= '0' && x <= '9') == (c == 'd');
      if (c == 'w' || c == 'W') set[static_cast<std::size_t>(i)] = is_word(x) == (c == 'w');
      if (c == 's' || c == 'S') set[static_cast<std::size_t>(i)] = space == (c == 's');
    }
    if (set.any()) return set;
    constexpr std::string_view letters = "nrtfva", controls = "\n\r\t\f\v\a";
    if (const auto found = letters.find(c); found != letters.npos) return set.set(static_cast<unsigned char>(controls[found]));
    require(!is_letter_or_digit(c), "uses an escape that is not supported; name the modules instead");
    return set.set(static_cast<unsigned char>(c));
  }

  Step escape() {
    const char c = next("an escape");
    if (c == 'b') return {.operation = Operation::word_edge};
    if (c == 'B') return {.operation = Operation::no_word_edge};
    if (c == 'A') return {.operation = Operation::begin};
    if (c == 'Z') return {.operation = Operation::end};
    return any_of(escaped(c));
  }

  Set bracket() {
    const bool negated = take("^");
    Set set;
    for (bool first = true; first || text_.substr(at_, 1) != "]"; first = false) {
      char low = next("a class");
      const bool is_escape = low == '\\';
      const Set one = is_escape ? escaped(low = next("an escape")) : Set().set(static_cast<unsigned char>(low));
      if (at_ + 1 >= text_.size() || text_[at_] != '-' || text_[at_ + 1] == ']') {
        set |= one;
        continue;
      }
      ++at_;
      char high = next("a class");
      if (high == '\\') require(!is_letter_or_digit(high = next("an escape")), "has a class range that ends in a class");
      require(static_cast<unsigned char>(low) <= static_cast<unsigned char>(high) && !(is_escape && is_letter_or_digit(low)),
              "has a class range that ends before it begins");
      for (int i = static_cast<unsigned char>(low); i <= static_cast<unsigned char>(high); ++i) set.set(static_cast<std::size_t>(i));
    }
    ++at_;
    return negated ? ~set : set;
  }

  // ---- matching

  /// The steps that wait for the next character, each once.
  struct Threads {
    std::vector<std::size_t> waiting;
    std::vector<bool> seen;
    bool accepted = false;
  };

  bool holds(const Step& step, std::string_view subject, std::size_t position) const {
    const auto word = [&](std::size_t i) { return i < subject.size() && is_word(subject[i]); };
    const bool edge = (position > 0 && word(position - 1)) != word(position);
    switch (step.operation) {
      case Operation::begin:
        return position == 0;
      case Operation::end:
        return position == subject.size();
      case Operation::word_edge:
        return edge;
      case Operation::no_word_edge:
        return !edge;
      case Operation::look:
        return run(looks_[step.index], subject, position, false);
      case Operation::look_not:
        return !run(looks_[step.index], subject, position, false);
      default:
        return true;
    }
  }

  /// Adds what can be reached from a step without a character.
  void follow(const Program& program, std::size_t from, std::string_view subject, std::size_t position, Threads& threads) const {
    std::vector<std::size_t> stack{from};
    while (!stack.empty()) {
      const std::size_t here = stack.back();
      stack.pop_back();
      if (threads.seen[here]) continue;
      threads.seen[here] = true;
      const Step& step = program[here];
      const auto target = [&](std::int32_t jump) { return static_cast<std::size_t>(static_cast<Index>(here) + jump); };
      if (step.operation == Operation::accept) {
        threads.accepted = true;
      } else if (step.operation == Operation::any_of) {
        threads.waiting.push_back(here);
      } else if (holds(step, subject, position)) {
        stack.push_back(target(step.first));
        if (step.operation == Operation::fork) stack.push_back(target(step.second));
      }
    }
  }

  bool run(const Program& program, std::string_view subject, std::size_t position, bool to_the_end) const {
    Threads threads{{}, std::vector<bool>(program.size())}, after = threads;
    follow(program, 0, subject, position, threads);
    for (; position < subject.size() && (to_the_end || !threads.accepted); ++position) {
      after.waiting.clear();
      after.seen.assign(program.size(), false);
      after.accepted = false;
      for (const std::size_t here : threads.waiting)
        if (sets_[program[here].index][static_cast<unsigned char>(subject[position])])
          follow(program, here + 1, subject, position + 1, after);
      std::swap(threads, after);
      if (threads.waiting.empty() && !threads.accepted) return false;
    }
    return threads.accepted;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool in_look_ = false;
  std::vector<Set> sets_;
  std::vector<Program> looks_;
  Program program_;
};

}  // namespace lowrank::inline LOWRANK_ABI
