#include <transformer/jinja/print.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <transformer/jinja/operators.hpp>
#include <transformer/tokenizer/utf8.hpp>

namespace transformer::jinja {

namespace {

void append_hex(std::string& text, const char* format, char32_t number) {
  std::array<char, 16> digits;
  std::snprintf(digits.data(), digits.size(), format, static_cast<unsigned>(number));
  text += digits.data();
}

/// Whether repr shows the character itself; of those beyond ASCII the blanks and controls of Latin-1 and the general punctuation are known.
bool is_shown(char32_t c) {
  if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) return false;
  const bool blank =
      c == 0x1680 || (c >= 0x2000 && c <= 0x200F) || (c >= 0x2028 && c <= 0x202F) || (c >= 0x205F && c <= 0x206F) || c == 0x3000;
  return !blank && c != 0xFEFF && !(c >= 0xE000 && c <= 0xF8FF) && c < 0xE0000;
}

void append_quoted_source(std::string& out, std::string_view text) {
  const bool doubled = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = doubled ? '"' : '\'';
  out += quote;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step(text, i);
    const char32_t c = step.code_point;
    if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\\' || c == static_cast<unsigned char>(quote))
      (out += '\\') += static_cast<char>(c);
    else if (is_shown(c))
      out += text.substr(i, step.length);
    else
      append_hex(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    i += step.length;
  }
  out += quote;
}

void append_quoted_json(std::string& out, std::string_view text, bool ascii) {
  static constexpr std::string_view escapes = "\"\"\\\\\nn\rr\tt\ff\bb";  // a character and its letter
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step(text, i);
    const char32_t c = step.code_point;
    std::size_t escape = escapes.size();
    for (std::size_t k = 0; k < escapes.size(); k += 2)
      if (static_cast<char32_t>(escapes[k]) == c) escape = k;
    if (escape < escapes.size()) {
      (out += '\\') += escapes[escape + 1];
    } else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000 && c != 0x7F)) {
      append_hex(out, "\\u%04x", c);
    } else if (ascii && c >= 0x10000) {
      append_hex(out, "\\u%04x", 0xD800 + ((c - 0x10000) >> 10));
      append_hex(out, "\\u%04x", 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      out += text.substr(i, step.length);
    }
    i += step.length;
  }
  out += '"';
}

/// Writes one value as Python's repr.
class SourcePrinter {
 public:
  explicit SourcePrinter(Run& run) : run_(run) {}

  std::string operator()(const Value& value) {
    append(value);
    return std::move(out_);
  }

 private:
  void append(const Value& value) {
    const Run::Deeper deeper(run_);
    const std::size_t before = out_.size();
    run_.step();
    switch (value.kind()) {
      case Kind::undefined:
        out_ += "Undefined";
        break;
      case Kind::none:
        out_ += "None";
        break;
      case Kind::boolean:
        out_ += value.as_boolean() ? "True" : "False";
        break;
      case Kind::integer:
        out_ += std::to_string(value.as_integer());
        break;
      case Kind::real:
        out_ += real_text(value.as_real());
        break;
      case Kind::text:
        append_quoted_source(out_, value.as_text());
        break;
      case Kind::list:
        append_items(value.items(), '[', ']', false);
        break;
      case Kind::tuple:
        append_items(value.items(), '(', ')', value.items().size() == 1);
        break;
      case Kind::dict:
        append_entries(value.as_dict().entries);
        break;
      default:
        run_.fail("printing a value of type ", value.type_name(), " is not supported");
    }
    if (!value.is_sequence() && !value.is_dict()) run_.charge(out_.size() - before);
  }

  void append_items(const Items& items, char open, char close, bool trailing_comma) {
    out_ += open;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += ", ";
      append(items[i]);
    }
    if (trailing_comma) out_ += ',';
    out_ += close;
  }

  void append_entries(const Entries& entries) {
    out_ += '{';
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ += ", ";
      append(entries[i].first);
      out_ += ": ";
      append(entries[i].second);
    }
    out_ += '}';
  }

  Run& run_;
  std::string out_;
};

/// Writes one value as Python's json.dumps.
class JsonPrinter {
 public:
  JsonPrinter(Run& run, const JsonLayout& layout) : run_(run), layout_(layout) {}

  std::string operator()(const Value& value) {
    append(value);
    return std::move(out_);
  }

 private:
  void append(const Value& value) {
    const Run::Deeper deeper(run_);
    const std::size_t before = out_.size();
    run_.step();
    switch (value.kind()) {
      case Kind::none:
        out_ += "null";
        break;
      case Kind::boolean:
        out_ += value.as_boolean() ? "true" : "false";
        break;
      case Kind::integer:
        out_ += std::to_string(value.as_integer());
        break;
      case Kind::real:
        out_ += number(value.as_real());
        break;
      case Kind::text:
        append_quoted_json(out_, value.as_text(), layout_.ascii);
        break;
      case Kind::list:
      case Kind::tuple:
        append_items(value.items());
        break;
      case Kind::dict:
        append_entries(value.as_dict().entries);
        break;
      default:
        check_defined(run_, value);
        run_.fail("JSON has no value of type ", value.type_name());
    }
    if (!value.is_sequence() && !value.is_dict()) run_.charge(out_.size() - before);
  }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return real_text(value);
  }

  std::string key(const Value& value) const {
    switch (value.kind()) {
      case Kind::text:
        return value.as_text();
      case Kind::none:
        return "null";
      case Kind::boolean:
        return value.as_boolean() ? "true" : "false";
      case Kind::integer:
        return std::to_string(value.as_integer());
      case Kind::real:
        return number(value.as_real());
      default:
        run_.fail("JSON has no key of type ", value.type_name());
    }
  }

  void new_line() {
    if (!layout_.is_indented) return;
    run_.charge(1 + layout_.indent.size() * level_);
    out_ += '\n';
    for (std::size_t i = 0; i < level_; ++i) out_ += layout_.indent;
  }

  void append_items(const Items& items) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    ++level_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      separate(i);
      append(items[i]);
    }
    --level_;
    new_line();
    out_ += ']';
  }

  void append_entries(Entries entries) {
    if (entries.empty()) {
      out_ += "{}";
      return;
    }
    if (layout_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) { return order(run_, a.first, b.first) < 0; });
    out_ += '{';
    ++level_;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      separate(i);
      append_quoted_json(out_, key(entries[i].first), layout_.ascii);
      out_ += layout_.key_separator;
      append(entries[i].second);
    }
    --level_;
    new_line();
    out_ += '}';
  }

  void separate(std::size_t index) {
    if (index > 0) {
      run_.charge(layout_.item_separator.size());
      out_ += layout_.item_separator;
    }
    new_line();
  }

  Run& run_;
  const JsonLayout& layout_;
  std::size_t level_ = 0;
  std::string out_;
};

}  // namespace

std::string to_text(Run& run, const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_text() || value.is(Kind::markup)) return value.as_text();
  return to_source(run, value);
}

std::string to_source(Run& run, const Value& value) { return SourcePrinter(run)(value); }

std::string to_json(Run& run, const Value& value, const JsonLayout& layout) { return JsonPrinter(run, layout)(value); }

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer;
  const char* end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific).ptr;
  std::string digits(buffer.data(), static_cast<std::size_t>(end - buffer.data())), sign;
  if (digits[0] == '-') sign = "-", digits.erase(0, 1);
  const std::size_t e = digits.find('e');
  const int exponent = std::atoi(digits.c_str() + e + 1);
  digits.resize(e);
  if (exponent < -4 || exponent >= 16) {
    std::array<char, 16> power;
    std::snprintf(power.data(), power.size(), "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return sign + digits + power.data();
  }
  std::erase(digits, '.');
  const int count = static_cast<int>(digits.size());
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) return sign + digits + std::string(static_cast<std::size_t>(exponent + 1 - count), '0') + ".0";
  return sign + digits.substr(0, static_cast<std::size_t>(exponent + 1)) + "." + digits.substr(static_cast<std::size_t>(exponent + 1));
}

}  // namespace transformer::jinja
