#pragma once

#include <string>
#include <utility>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE bool is_word_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// Reads an expression by recursive descent; each function returns the steps of what it read.
class RegexReader {
 public:
  explicit RegexReader(std::string_view text) : text_(text) {}

  Regex read() {
    require(text_.size() <= max_steps, "is too long; name the modules instead");
    regex_.program = alternatives(0);
    require(at_ == text_.size(), "has a ) too many");
    regex_.program.push_back({.operation = Operation::accept});
    return std::move(regex_);
  }

 private:
  using Operation = RegexStep::Operation;
  using Step = RegexStep;
  using Program = RegexProgram;
  using Set = std::bitset<256>;

  static constexpr std::size_t max_steps = 4096;
  static constexpr int max_depth = 32;

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
    regex_.looks.push_back(std::move(inside));
    require(regex_.looks.size() <= 8, "looks ahead too often");
    return {{.operation = operation, .index = static_cast<std::uint32_t>(regex_.looks.size() - 1)}};
  }

  Step any_of(const Set& set) {
    regex_.sets.push_back(set);
    return {.operation = Operation::any_of, .index = static_cast<std::uint32_t>(regex_.sets.size() - 1)};
  }

  static bool is_letter_or_digit(char c) { return is_word_character(c) && c != '_'; }

  /// The characters of `\d` `\w` `\s` and their negations, of \n and the like, or of an escaped sign.
  Set escaped(char c) const {
    Set set;
    for (int i = 0; i < 256; ++i) {
      const char x = static_cast<char>(i);
      const bool space = x == ' ' || (x >= '\t' && x <= '\r');
      if (c == 'd' || c == 'D') set[static_cast<std::size_t>(i)] = (x >= '0' && x <= '9') == (c == 'd');
      if (c == 'w' || c == 'W') set[static_cast<std::size_t>(i)] = is_word_character(x) == (c == 'w');
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

  std::string_view text_;
  std::size_t at_ = 0;
  bool in_look_ = false;
  Regex regex_;
};

/// The steps that wait for the next character, each once.
struct RegexThreads {
  std::vector<std::size_t> waiting;
  std::vector<bool> seen;
  bool accepted = false;
};

LOWRANK_INLINE bool run(const Regex& regex, const RegexProgram& program, std::string_view subject, std::size_t position, bool to_the_end);

LOWRANK_INLINE bool holds(const Regex& regex, const RegexStep& step, std::string_view subject, std::size_t position) {
  const auto word = [&](std::size_t i) { return i < subject.size() && is_word_character(subject[i]); };
  const bool edge = (position > 0 && word(position - 1)) != word(position);
  switch (step.operation) {
    case RegexStep::Operation::begin:
      return position == 0;
    case RegexStep::Operation::end:
      return position == subject.size();
    case RegexStep::Operation::word_edge:
      return edge;
    case RegexStep::Operation::no_word_edge:
      return !edge;
    case RegexStep::Operation::look:
      return run(regex, regex.looks[step.index], subject, position, false);
    case RegexStep::Operation::look_not:
      return !run(regex, regex.looks[step.index], subject, position, false);
    default:
      return true;
  }
}

/// Adds what can be reached from a step without a character.
LOWRANK_INLINE void follow(const Regex& regex, const RegexProgram& program, std::size_t from, std::string_view subject,
                           std::size_t position, RegexThreads& threads) {
  std::vector<std::size_t> stack{from};
  while (!stack.empty()) {
    const std::size_t here = stack.back();
    stack.pop_back();
    if (threads.seen[here]) continue;
    threads.seen[here] = true;
    const RegexStep& step = program[here];
    const auto target = [&](std::int32_t jump) { return static_cast<std::size_t>(static_cast<Index>(here) + jump); };
    if (step.operation == RegexStep::Operation::accept) {
      threads.accepted = true;
    } else if (step.operation == RegexStep::Operation::any_of) {
      threads.waiting.push_back(here);
    } else if (holds(regex, step, subject, position)) {
      stack.push_back(target(step.first));
      if (step.operation == RegexStep::Operation::fork) stack.push_back(target(step.second));
    }
  }
}

LOWRANK_INLINE bool run(const Regex& regex, const RegexProgram& program, std::string_view subject, std::size_t position, bool to_the_end) {
  RegexThreads threads{{}, std::vector<bool>(program.size())}, after = threads;
  follow(regex, program, 0, subject, position, threads);
  for (; position < subject.size() && (to_the_end || !threads.accepted); ++position) {
    after.waiting.clear();
    after.seen.assign(program.size(), false);
    after.accepted = false;
    for (const std::size_t here : threads.waiting)
      if (regex.sets[program[here].index][static_cast<unsigned char>(subject[position])])
        follow(regex, program, here + 1, subject, position + 1, after);
    std::swap(threads, after);
    if (threads.waiting.empty() && !threads.accepted) return false;
  }
  return threads.accepted;
}

}  // namespace detail

LOWRANK_INLINE RegularExpression::RegularExpression(std::string_view text) : regex_(detail::RegexReader(text).read()) {}

LOWRANK_INLINE bool RegularExpression::matches(std::string_view subject) const {
  return subject.size() <= 1024 && detail::run(regex_, regex_.program, subject, 0, true);
}

}  // namespace lowrank::inline LOWRANK_ABI
