#include <transformer/jinja/text.hpp>

#include <algorithm>

#include <lowrank/error.hpp>

#include <transformer/tokenizer/utf8.hpp>

namespace transformer::jinja {

namespace {

char32_t code_point_at(std::string_view text, std::size_t position) { return utf8_step(text, position).code_point; }

std::size_t length_at(std::string_view text, std::size_t position) { return utf8_step(text, position).length; }

/// Where the character that ends before `end` begins.
std::size_t character_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool is_line_end(char32_t c) { return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029; }

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char to_upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

std::int64_t occurrences(std::string_view text, std::string_view part, std::int64_t most) {
  std::int64_t count = 0;
  for (std::size_t found = text.find(part); found != std::string_view::npos && count != most; found = text.find(part, found + part.size()))
    ++count;
  return count;
}

std::size_t character_count(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = length_at(text, i);
    result.emplace_back(text.substr(i, length));
    i += length;
  }
  return result;
}

bool is_blank(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view strip(std::string_view text, Side side, const std::string_view* set) {
  const auto goes = [&](std::size_t position) {
    const std::string_view character = text.substr(position, length_at(text, position));
    return set ? set->find(character) != std::string_view::npos : is_blank(code_point_at(text, position));
  };
  std::size_t begin = 0, end = text.size();
  if (side != Side::right)
    while (begin < end && goes(begin)) begin += length_at(text, begin);
  if (side != Side::left)
    while (end > begin && goes(character_before(text, end))) end = character_before(text, end);
  return text.substr(begin, end - begin);
}

std::vector<std::string> split(std::string_view text, std::string_view separator, std::int64_t most, Side from) {
  std::vector<std::string> parts;
  const auto cuts_left = [&] { return most < 0 || static_cast<std::int64_t>(parts.size()) < most; };
  if (from == Side::right) {
    for (std::size_t found; cuts_left() && (found = text.rfind(separator)) != std::string_view::npos; text = text.substr(0, found))
      parts.emplace_back(text.substr(found + separator.size()));
    parts.emplace_back(text);
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  for (std::size_t found; cuts_left() && (found = text.find(separator)) != std::string_view::npos;
       text = text.substr(found + separator.size()))
    parts.emplace_back(text.substr(0, found));
  parts.emplace_back(text);
  return parts;
}

std::vector<std::string> split_blanks(std::string_view text, std::int64_t most, Side from) {
  std::vector<std::string> parts;
  const bool left = from != Side::right;
  for (text = strip(text, left ? Side::left : Side::right); !text.empty();) {
    if (most >= 0 && static_cast<std::int64_t>(parts.size()) == most) {
      parts.emplace_back(text);
      break;
    }
    std::size_t edge = left ? 0 : text.size();
    if (left)
      while (edge < text.size() && !is_blank(code_point_at(text, edge))) edge += length_at(text, edge);
    else
      while (edge > 0 && !is_blank(code_point_at(text, character_before(text, edge)))) edge = character_before(text, edge);
    parts.emplace_back(left ? text.substr(0, edge) : text.substr(edge));
    text = left ? strip(text.substr(edge), Side::left) : strip(text.substr(0, edge), Side::right);
  }
  if (!left) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin;
    while (end < text.size() && !is_line_end(code_point_at(text, end))) end += length_at(text, end);
    std::size_t next = end == text.size() ? end : end + length_at(text, end);
    if (text.substr(end).starts_with("\r\n")) ++next;
    lines.emplace_back(text.substr(begin, (keep_ends ? next : end) - begin));
    begin = next;
  }
  return lines;
}

std::string replace(std::string_view text, std::string_view old, std::string_view fresh, std::int64_t most) {
  std::string result;
  std::int64_t done = 0;
  const auto more = [&] { return most < 0 || done < most; };
  if (old.empty()) {  // between all characters
    for (std::size_t i = 0; i < text.size(); ++done) {
      if (more()) result += fresh;
      const std::size_t length = length_at(text, i);
      result += text.substr(i, length);
      i += length;
    }
    if (more()) result += fresh;
    return result;
  }
  for (std::size_t found; more() && (found = text.find(old)) != std::string_view::npos; ++done) {
    result.append(text.substr(0, found)).append(fresh);
    text.remove_prefix(found + old.size());
  }
  return result.append(text);
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), to_upper);
  return text;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), to_lower);
  return text;
}

std::string capitalize(std::string text) {
  text = lower(std::move(text));
  if (!text.empty()) text[0] = to_upper(text[0]);
  return text;
}

std::string title(std::string text) {
  bool inside = false;
  for (char& c : text) {
    c = inside ? to_lower(c) : to_upper(c);
    inside = is_letter(c);
  }
  return text;
}

}  // namespace transformer::jinja
