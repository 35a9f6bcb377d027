#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/value.hpp>

namespace transformer::jinja {

/// A piece of a template.
struct Token {
  enum class Kind { data, output_begin, output_end, block_begin, block_end, name, number, string, sign, end };
  Kind kind;
  std::string text;  ///< of data, a name, a string (unescaped) or a sign such as "=="
  Position at;
  Value number = {};

  bool is_sign(std::string_view sign) const { return kind == Kind::sign && text == sign; }
  bool is_name(std::string_view name) const { return kind == Kind::name && text == name; }
};

/// Throws FormatError "[jinja] line …, column …: …".
template <class... Parts>
[[noreturn]] void fail_at(Position at, const Parts&... parts) {
  lowrank::fail<lowrank::FormatError>("jinja", "line ", at.line, ", column ", at.column, ": ", parts...);
}

/// Cuts a template into tokens; comments are gone, and blanks around tags as trim_blocks, lstrip_blocks and the signs - and + say.
///
/// The last token is `end`. Throws FormatError with line and column. Cost: O(n).
std::vector<Token> tokenize(std::string_view source);

}  // namespace transformer::jinja
