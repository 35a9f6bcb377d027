#pragma once

#include <cstdio>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void Part::append_to(std::string& message) const {
  switch (kind_) {
    case Kind::text:
      message += text_;
      break;
    case Kind::character:
      message += static_cast<char>(natural_);
      break;
    case Kind::integer:
      message += std::to_string(integer_);
      break;
    case Kind::natural:
      message += std::to_string(natural_);
      break;
    case Kind::real: {
      char digits[32];
      message.append(digits, static_cast<std::size_t>(std::snprintf(digits, sizeof digits, "%g", real_)));
      break;
    }
    case Kind::path:
      message += '"' + print_(object_) + '"';
      break;
    case Kind::printer:
      message += print_(object_);
      break;
  }
}

namespace detail {
LOWRANK_INLINE std::string join(std::initializer_list<Part> parts) {
  std::string text;
  for (const Part& part : parts) part.append_to(text);
  return text;
}
}  // namespace detail

LOWRANK_INLINE std::string printable(std::string_view text, std::size_t longest) {
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

}  // namespace lowrank::inline LOWRANK_ABI
