#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace transformer {

/// One step through a text that claims to be UTF-8: how many bytes, and what they are.
struct Utf8Step {
  enum class Kind { valid, invalid, incomplete };
  std::size_t length;       ///< bytes of the character, or of the broken part of one (at least 1)
  Kind kind;                ///< incomplete: the text ends inside a character that may still become valid
  char32_t code_point = 0;  ///< of a valid character
};

/// The character at `position`; of a broken one the longest part that could begin a character (Unicode 15, section 3.9, table 3-7).
inline Utf8Step utf8_step(std::string_view text, std::size_t position) {
  using Kind = Utf8Step::Kind;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[position + i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {1, Kind::valid, first};
  if (first < 0xC2 || first > 0xF4) return {1, Kind::invalid};
  const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  char32_t code_point = first & (0xFFu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if (position + i == text.size()) return {i, Kind::incomplete};
    if (byte(i) < low || byte(i) > high) return {i, Kind::invalid};
    code_point = code_point << 6 | (byte(i) & 0x3Fu);
    low = 0x80;
    high = 0xBF;
  }
  return {length, Kind::valid, code_point};
}

/// Bytes of the longest beginning of `text` that is whole, valid UTF-8.
inline std::size_t valid_utf8_length(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    const Utf8Step step = utf8_step(text, position);
    if (step.kind != Utf8Step::Kind::valid) break;
    position += step.length;
  }
  return position;
}

inline void append_utf8(std::string& text, char32_t code_point) {
  const auto put = [&](char32_t bits) { text.push_back(static_cast<char>(static_cast<unsigned char>(bits))); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
  } else {
    if (code_point < 0x10000) {
      put(0xE0 | code_point >> 12);
    } else {
      put(0xF0 | code_point >> 18);
      put(0x80 | (code_point >> 12 & 0x3F));
    }
    put(0x80 | (code_point >> 6 & 0x3F));
  }
  put(0x80 | (code_point & 0x3F));
}

/// The text with every broken part replaced by U+FFFD, so that a terminal or a JSON file can take it.
inline std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Step step = utf8_step(text, position);
    if (step.kind == Utf8Step::Kind::valid)
      result.append(text.substr(position, step.length));
    else
      append_utf8(result, 0xFFFD);
    position += step.length;
  }
  return result;
}

/// GPT-2's names for bytes: a vocabulary file spells each byte of a token as one printable character.
///
/// Printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100 to U+0143, so a blank is written Ġ and a newline Ċ.
class ByteNames {
 public:
  ByteNames() {
    bytes_.fill(-1);
    char32_t next = 0x100;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      const char32_t name = printable ? static_cast<char32_t>(byte) : next++;
      append_utf8(names_[byte], name);
      bytes_[name] = static_cast<int>(byte);
    }
  }

  const std::string& name(unsigned char byte) const { return names_[byte]; }

  std::string encode(std::string_view bytes) const {
    std::string text;
    for (const char byte : bytes) text += name(static_cast<unsigned char>(byte));
    return text;
  }

  /// Turns names into bytes. False, and `bytes` unspecified, when a character is no byte's name.
  bool decode(std::string_view text, std::string& bytes) const {
    bytes.clear();
    for (std::size_t position = 0; position < text.size();) {
      const Utf8Step step = utf8_step(text, position);
      if (step.kind != Utf8Step::Kind::valid || step.code_point >= bytes_.size() || bytes_[step.code_point] < 0) return false;
      bytes.push_back(static_cast<char>(static_cast<unsigned char>(bytes_[step.code_point])));
      position += step.length;
    }
    return true;
  }

 private:
  std::array<std::string, 256> names_;
  std::array<int, 0x144> bytes_;
};

inline const ByteNames& byte_names() {
  static const ByteNames names;
  return names;
}

/// The byte that a token <0xNN> stands for.
inline std::optional<unsigned char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : token.substr(3, 2)) {
    const std::size_t digit = std::string_view("0123456789ABCDEF").find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    value = value << 4 | static_cast<unsigned>(digit);
  }
  return static_cast<unsigned char>(value);
}

}  // namespace transformer
