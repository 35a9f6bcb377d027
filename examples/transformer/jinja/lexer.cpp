#include <transformer/jinja/lexer.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>

#include <transformer/jinja/text.hpp>
#include <transformer/tokenizer/utf8.hpp>

namespace transformer::jinja {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_character(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

/// Line ends as one character, without the last one.
std::string normalized_lines(std::string_view source) {
  std::string text = replace(replace(source, "\r\n", "\n"), "\r", "\n");
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized_lines(source)) {}

  std::vector<Token> operator()() {
    while (at_ < source_.size()) read_data();
    add(Token::Kind::end, {}, at_);
    return std::move(tokens_);
  }

 private:
  std::string_view rest(std::size_t from) const { return std::string_view(source_).substr(std::min(from, source_.size())); }

  /// Line and column of a byte; asked for in rising order.
  Position position(std::size_t byte) {
    for (; counted_ < byte; ++counted_) {
      if (source_[counted_] == '\n') {
        ++place_.line;
        place_.column = 1;
      } else if ((static_cast<unsigned char>(source_[counted_]) & 0xC0) != 0x80) {
        ++place_.column;
      }
    }
    return place_;
  }

  void add(Token::Kind kind, std::string text, std::size_t byte) { tokens_.push_back({kind, std::move(text), position(byte)}); }

  std::size_t skip_blanks(std::size_t from) const { return source_.size() - strip(rest(from), Side::left).size(); }

  /// The byte after a tag's last one; what may go after it is gone as well.
  void leave(std::size_t end, char sign, bool trims_line) {
    at_ = end;
    if (sign == '-')
      at_ = skip_blanks(at_);
    else if (sign != '+' && trims_line && rest(at_).starts_with('\n'))
      ++at_;
    starts_line_ = source_[at_ - 1] == '\n';
  }

  /// Text up to a tag, and the tag.
  void read_data() {
    std::size_t open = source_.find('{', at_);
    while (open != std::string::npos &&
           (open + 1 >= source_.size() || std::string_view("{%#").find(source_[open + 1]) == std::string_view::npos))
      open = source_.find('{', open + 1);
    if (open == std::string::npos) {
      add(Token::Kind::data, std::string(rest(at_)), at_);
      at_ = source_.size();
      return;
    }
    const char kind = source_[open + 1];
    add_data(open, sign_at(open + 2), kind != '{');
    at_ = open + 2 + (sign_at(open + 2) != 0);
    if (kind == '#') return read_comment(open);
    if (kind == '%' && read_raw(open)) return;
    read_tag(open, kind == '{');
  }

  char sign_at(std::size_t byte) const {
    return byte < source_.size() && (source_[byte] == '-' || source_[byte] == '+') ? source_[byte] : '\0';
  }

  /// The text before a tag, without the blanks that the tag takes.
  void add_data(std::size_t end, char sign, bool strips_line) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      text = strip(text, Side::right);
    } else if (sign != '+' && strips_line) {
      const std::size_t line = text.rfind('\n') + 1;
      if ((line > 0 || starts_line_) && strip(text.substr(line), Side::both).empty()) text = text.substr(0, line);
    }
    if (!text.empty()) add(Token::Kind::data, std::string(text), at_);
  }

  void read_comment(std::size_t open) {
    const std::size_t close = source_.find("#}", at_);
    if (close == std::string::npos) fail_at(position(open), "the comment never ends; close it with #}");
    leave(close + 2, close > at_ ? sign_at(close - 1) : '\0', true);
  }

  /// {% raw %} … {% endraw %}; whether there was one.
  bool read_raw(std::size_t open) {
    std::size_t byte = skip_blanks(at_);
    if (!rest(byte).starts_with("raw")) return false;
    byte = skip_blanks(byte + 3);
    const char sign = sign_at(byte);
    if (sign == '+' || !rest(byte + (sign != 0)).starts_with("%}")) return false;
    leave(byte + 2 + (sign != 0), sign, false);
    for (std::size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char before = sign_at(tag + 2);
      std::size_t end = skip_blanks(tag + 2 + (before != 0));
      if (!rest(end).starts_with("endraw")) continue;
      end = skip_blanks(end + 6);
      const char after = sign_at(end);
      if (!rest(end + (after != 0)).starts_with("%}")) continue;
      add_data(tag, before, true);
      leave(end + 2 + (after != 0), after, true);
      return true;
    }
    fail_at(position(open), "the raw block never ends; close it with {% endraw %}");
  }

  void read_tag(std::size_t open, bool is_output) {
    const Position began = position(open);
    add(is_output ? Token::Kind::output_begin : Token::Kind::block_begin, {}, open);
    std::string closing;  // brackets that are open
    const std::string_view end = is_output ? "}}" : "%}";
    while (true) {
      if (at_ >= source_.size()) fail_at(began, "the tag never ends; close it with ", end);
      const char sign = sign_at(at_);
      const bool ends = rest(at_ + (sign != 0)).starts_with(end) && !(is_output && sign == '+');
      if (closing.empty() && ends) break;
      const std::size_t after = skip_blanks(at_);
      if (after > at_)
        at_ = after;
      else
        read_token(closing);
    }
    add(is_output ? Token::Kind::output_end : Token::Kind::block_end, {}, at_);
    const char sign = sign_at(at_);
    leave(at_ + 2 + (sign != 0), sign, !is_output);
  }

  void read_token(std::string& closing) {
    const char c = source_[at_];
    if (is_digit(c)) return read_number();
    if (c == '\'' || c == '"') return read_string();
    if (is_name_character(c)) {
      std::size_t end = at_;
      while (end < source_.size() && is_name_character(source_[end])) ++end;
      add(Token::Kind::name, source_.substr(at_, end - at_), at_);
      at_ = end;
      return;
    }
    for (const std::string_view sign : {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"})
      if (rest(at_).starts_with(sign)) return read_sign(sign, closing);
    fail_at(position(at_), "unexpected character \"", utf8_prefix(), "\"");
  }

  std::string utf8_prefix() const { return std::string(rest(at_).substr(0, utf8_step(source_, at_).length)); }

  void read_sign(std::string_view sign, std::string& closing) {
    if (sign == "(") closing += ')';
    if (sign == "[") closing += ']';
    if (sign == "{") closing += '}';
    if (sign == ")" || sign == "]" || sign == "}") {
      if (closing.empty() || closing.back() != sign[0])
        fail_at(position(at_), "unexpected \"", sign, '"', closing.empty() ? "" : ", expected ",
                closing.empty() ? "" : closing.substr(closing.size() - 1));
      closing.pop_back();
    }
    add(Token::Kind::sign, std::string(sign), at_);
    at_ += sign.size();
  }

  /// The byte after digits with single low lines between them.
  std::size_t digits_end(std::size_t from) const {
    std::size_t end = from;
    while (end < source_.size() && (is_digit(source_[end]) || (source_[end] == '_' && end > from && is_digit(source_[end - 1]) &&
                                                               end + 1 < source_.size() && is_digit(source_[end + 1]))))
      ++end;
    return end;
  }

  void read_number() {
    const std::size_t begin = at_;
    std::size_t end = digits_end(begin);
    bool real = false;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    if (!after_dot && end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      end = digits_end(end + 1);
      real = true;
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const std::size_t power = end + 1 + (sign_at(end + 1) != 0);
      if (power < source_.size() && is_digit(source_[power])) {
        end = digits_end(power);
        real = true;
      }
    }
    if (end < source_.size() && is_name_character(source_[end])) fail_at(position(begin), "a number ends in a letter; numbers are decimal");
    std::string digits = source_.substr(begin, end - begin);
    std::erase(digits, '_');
    tokens_.push_back({Token::Kind::number, digits, position(begin), number(digits, real, begin)});
    at_ = end;
  }

  Value number(const std::string& digits, bool real, std::size_t begin) {
    if (real) return Value::real(std::strtod(digits.c_str(), nullptr));
    std::int64_t value = 0;
    const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (failure != std::errc()) fail_at(position(begin), "the number ", digits, " is beyond 64 bits, which is not supported");
    if (digits.size() > 1 && digits[0] == '0' && value != 0) fail_at(position(begin), "the number ", digits, " begins with 0");
    return Value::integer(value);
  }

  void read_string() {
    const std::size_t begin = at_;
    const char quote = source_[at_++];
    std::string text;
    while (at_ < source_.size() && source_[at_] != quote) {
      if (source_[at_] == '\\')
        read_escape(text, begin);
      else
        text += source_[at_++];
    }
    if (at_ >= source_.size()) fail_at(position(begin), "the text never ends; close it with ", quote);
    ++at_;
    add(Token::Kind::string, std::move(text), begin);
  }

  void read_escape(std::string& text, std::size_t begin) {
    static constexpr std::string_view letters = "nrtbfav\\'\"", meanings = "\n\r\t\b\f\a\v\\'\"";
    const char letter = at_ + 1 < source_.size() ? source_[at_ + 1] : '\0';
    const std::size_t known = letters.find(letter);
    if (known != std::string_view::npos) {
      text += meanings[known];
      at_ += 2;
    } else if (letter == '\n') {
      at_ += 2;
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      read_code_point(text, letter == 'x' ? 2 : letter == 'u' ? 4 : 8, begin);
    } else if (letter == 'N' || (letter >= '0' && letter <= '7')) {
      fail_at(position(begin), "the escape \\", letter, " is not supported; use \\u with four digits");
    } else {  // no escape: the sign stays
      text += source_[at_++];
    }
  }

  void read_code_point(std::string& text, std::size_t digits, std::size_t begin) {
    std::uint32_t code_point = 0;
    const std::string_view hex = rest(at_ + 2).substr(0, digits);
    const auto [end, failure] = std::from_chars(hex.data(), hex.data() + hex.size(), code_point, 16);
    const bool whole = failure == std::errc() && end == hex.data() + digits;
    if (!whole || code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000))
      fail_at(position(begin), "an escape names no character");
    append_utf8(text, code_point);
    at_ += 2 + digits;
  }

  std::string source_;
  std::size_t at_ = 0;
  bool starts_line_ = true;  // whether what was read before ended a line
  std::size_t counted_ = 0;
  Position place_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source)(); }

}  // namespace transformer::jinja
