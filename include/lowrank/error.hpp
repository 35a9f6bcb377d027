#pragma once

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

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

/// One part of a message: a text, a character, a number, a path in quotes, or a callable that gives a text. It refers to what it was made
/// from, and is printed only when the message is wanted: what costs work or is there only on failure is given as a callable.
///
/// Not a stream: to find the operator<< for each part of each message costs a compiler more than all else in a header.
class Part {
 public:
  Part(std::string_view text) : kind_(Kind::text), text_(text) {}
  Part(const std::string& text) : Part(std::string_view(text)) {}
  Part(const char* text) : Part(std::string_view(text == nullptr ? "" : text)) {}
  Part(char character) : kind_(Kind::character), natural_(static_cast<unsigned char>(character)) {}
  template <class Number>
  requires std::is_arithmetic_v<Number> Part(Number number) {
    if constexpr (std::is_floating_point_v<Number>)
      kind_ = Kind::real, real_ = static_cast<double>(number);
    else if constexpr (std::is_signed_v<Number>)
      kind_ = Kind::integer, integer_ = number;
    else
      kind_ = Kind::natural, natural_ = number;
  }
  template <class Path>
  requires requires(const Path& path) {
    { path.string() } -> std::convertible_to<std::string>;
  }
  Part(const Path& path)
      : kind_(Kind::path), object_(&path), print_([](const void* object) { return static_cast<const Path*>(object)->string(); }) {}
  template <class Printer>
  requires requires(const Printer& printer) {
    { printer() } -> std::convertible_to<std::string>;
  }
  Part(const Printer& printer)
      : kind_(Kind::printer),
        object_(&printer),
        print_([](const void* object) -> std::string { return (*static_cast<const Printer*>(object))(); }) {}

  void append_to(std::string& message) const;

 private:
  enum class Kind { text, character, integer, natural, real, path, printer } kind_;
  union {
    std::string_view text_;
    long long integer_;
    unsigned long long natural_;
    double real_;
    const void* object_;
  };
  std::string (*print_)(const void*) = nullptr;
};

namespace detail {
std::string join(std::initializer_list<Part> parts);
}  // namespace detail

/// Concatenates texts, characters, numbers (six digits of a fraction) and paths (in quotes).
template <class... Parts>
std::string concat(const Parts&... parts) {
  return detail::join({Part(parts)...});
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
std::string printable(std::string_view text, std::size_t longest = std::string_view::npos);

namespace detail {
template <class Kind>
[[noreturn, gnu::cold]] void fail(std::string_view operation, std::initializer_list<Part> parts) {
  throw Kind(printable(join({'[', operation, "] ", join(parts)})));
}
}  // namespace detail

/// Throws Kind with the text "[operation] parts…", one printable line; parts say what was given, what was expected and how to fix it.
template <class Kind, class... Parts>
[[noreturn]] void fail(std::string_view operation, const Parts&... parts) {
  detail::fail<Kind>(operation, {Part(parts)...});
}

/// Throws Kind unless the condition holds. The parts are printed only then.
template <class Kind, class... Parts>
void check(bool condition, std::string_view operation, const Parts&... parts) {
  if (!condition) [[unlikely]]
    detail::fail<Kind>(operation, {Part(parts)...});
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/error.inl>
#endif
