#pragma once

#include <cstddef>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What every exception of the library derives from; its text begins with the operation in brackets.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Sizes that do not fit together.
struct ShapeError : Error {
  using Error::Error;
};
/// An argument outside its range, or a number that is not finite.
struct ValueError : Error {
  using Error::Error;
};
/// A file or text that does not hold what its format says.
struct FormatError : Error {
  using Error::Error;
};
/// The operating system refused: open, read, map, write, rename.
struct IoError : Error {
  using Error::Error;
};

/// Concatenates anything that a stream can print.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return std::move(text).str();
}

/// Bytes of the UTF-8 character that a text begins with, or 0 when it begins with none (The Unicode Standard, table 3-7).
constexpr std::size_t character_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = byte(0), second = byte(1);
  const bool excluded = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||  // overlong; surrogates
                        (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);    // overlong; beyond U+10FFFF
  if (text.empty() || excluded || (first >= 0x80 && first < 0xC2) || first > 0xF4) return 0;
  const std::size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  return length;
}

/// A text made fit for one line of a terminal or a log: control characters and bytes that are not UTF-8 as "?", and no more than about
/// `longest` bytes of it.
inline std::string printable(std::string_view text, std::size_t longest = std::string_view::npos) {
  std::string line;
  while (!text.empty() && line.size() < longest) {
    const std::size_t length = character_length(text);
    const auto first = static_cast<unsigned char>(text[0]);
    const bool control = first < 0x20 || first == 0x7F || (length == 2 && first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0);
    line += length == 0 || control ? "?" : text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return text.empty() ? line : line + "…";
}

/// Throws Kind with the text "[operation] parts…", one printable line; parts say what was given, what was expected and how to fix it.
template <class Kind, class... Parts>
[[noreturn]] void fail(std::string_view operation, const Parts&... parts) {
  throw Kind(printable(concat('[', operation, "] ", parts...)));
}

/// Throws Kind unless the condition holds. The parts are printed only then.
template <class Kind, class... Parts>
void check(bool condition, std::string_view operation, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail<Kind>(operation, parts...);
}

}  // namespace lowrank::inline LOWRANK_ABI
