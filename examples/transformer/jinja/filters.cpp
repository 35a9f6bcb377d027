#include <transformer/jinja/filters.hpp>

#include <charconv>
#include <cmath>
#include <cstdlib>

#include <transformer/jinja/arguments.hpp>
#include <transformer/jinja/members.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/print.hpp>
#include <transformer/jinja/text.hpp>

namespace transformer::jinja {

namespace {

struct NamedFilter {
  std::string_view name;
  Filter apply;
};

std::string printed(Run& run, const Value& value) {
  run.check(!value.is(Kind::markup), "what is marked safe can only be printed; another filter after `safe` is not supported");
  return to_text(run, value);
}

/// The text in ASCII that a change of case works on.
std::string cased(Run& run, const Value& value) {
  std::string text = printed(run, value);
  run.read(text.size());
  run.check(is_ascii(text), "a change of case of a text that is not ASCII is not supported");
  return text;
}

Value filter_default(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "default", given, {"default_value", "boolean"});
  const bool replaced = value.is_undefined() || (bound.is_true(1, false) && !is_true(value));
  if (!replaced) return value;
  return bound[0] ? *bound[0] : Value::text("");
}

Value filter_length(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "length", given, {});
  const auto length = length_of(run, value);
  run.check(length.has_value(), "a value of type ", value.type_name(), " has no length");
  return Value::integer(*length);
}

Value filter_trim(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "trim", given, {"chars"});
  const std::string text = printed(run, value);
  run.read(text.size() * (bound.has(0) ? bound.text(0).size() : 1));
  if (!bound.has(0)) return run.text(std::string(strip(text, Side::both)));
  const std::string_view set = bound.text(0);
  return run.text(std::string(strip(text, Side::both, &set)));
}

Value filter_upper(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "upper", given, {});
  return run.text(upper(cased(run, value)));
}

Value filter_lower(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "lower", given, {});
  return run.text(lower(cased(run, value)));
}

Value filter_capitalize(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "capitalize", given, {});
  return run.text(capitalize(cased(run, value)));
}

/// Upper case after blanks, hyphens and opening brackets alone, unlike str.title().
Value filter_title(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "title", given, {});
  std::string text = lower(cased(run, value));
  bool starts = true;
  for (char& c : text) {
    if (starts) c = upper(std::string(1, c))[0];
    starts = is_blank(static_cast<unsigned char>(c)) || std::string_view("-({[<").find(c) != std::string_view::npos;
  }
  return run.text(std::move(text));
}

Value filter_replace(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "replace", given, {"old", "new", "count"}, 2);
  const std::int64_t most = bound.has(2) ? bound.whole(2, -1) : -1;
  return Value::text(replace_counted(run, printed(run, value), printed(run, *bound[0]), printed(run, *bound[1]), most));
}

Value filter_string(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "string", given, {});
  return value.is_text() || value.is(Kind::markup) ? value : run.text(to_text(run, value));
}

Value filter_safe(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "safe", given, {});
  return Value::markup(run.text(to_text(run, value)));
}

/// The number that a text spells, or nothing.
std::optional<Value> spelled_number(const std::string& text, bool whole) {
  const std::string stripped(strip(text, Side::both));
  if (whole) {
    std::int64_t number = 0;
    const char* begin = stripped.data() + (stripped.starts_with('+') ? 1 : 0);
    const auto [end, failure] = std::from_chars(begin, stripped.data() + stripped.size(), number);
    const bool read = failure == std::errc() && end == stripped.data() + stripped.size() && end != begin;
    if (read) return Value::integer(number);
  }
  char* end = nullptr;
  const double number = std::strtod(stripped.c_str(), &end);
  if (stripped.empty() || *end != '\0' || stripped.find_first_of("xXpP(") != std::string::npos) return std::nullopt;
  return Value::real(number);
}

Value truncated(const Run& run, double number) {
  run.check(std::abs(number) < 9.2e18, "a number is beyond 64 bits, which is not supported");
  return Value::integer(static_cast<std::int64_t>(number));
}

Value filter_int(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "int", given, {"default"});
  check_defined(run, value);
  const Value otherwise = bound[0] ? *bound[0] : Value::integer(0);
  if (value.is_whole()) return Value::integer(value.as_integer());
  if (value.is(Kind::real)) return std::isfinite(value.as_real()) ? truncated(run, value.as_real()) : otherwise;
  if (!value.is_text()) return otherwise;
  const auto number = spelled_number(value.as_text(), true);
  if (!number || (number->is(Kind::real) && !std::isfinite(number->as_real()))) return otherwise;
  return number->is(Kind::real) ? truncated(run, number->as_real()) : *number;
}

Value filter_float(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "float", given, {"default"});
  check_defined(run, value);
  if (value.is_number()) return Value::real(value.as_real());
  if (value.is_text())
    if (const auto number = spelled_number(value.as_text(), false)) return *number;
  return bound[0] ? *bound[0] : Value::real(0);
}

Value filter_abs(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "abs", given, {});
  check_defined(run, value);
  run.check(value.is_number(), "abs wants a number, not ", value.type_name());
  if (value.is(Kind::real)) return Value::real(std::abs(value.as_real()));
  return value.as_integer() < 0 ? negative(run, value) : Value::integer(value.as_integer());
}

Value filter_round(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "round", given, {"precision", "method"});
  check_defined(run, value);
  run.check(value.is_number() && bound.whole(0, 0) == 0, "round supports numbers and precision 0 alone");
  const std::string method = bound[1] ? bound.text(1) : "common";
  if (method == "floor") return Value::real(std::floor(value.as_real()));
  if (method == "ceil") return Value::real(std::ceil(value.as_real()));
  run.check(method == "common", "round has no method ", method);
  if (value.is_whole()) return Value::integer(value.as_integer());
  return Value::real(std::nearbyint(value.as_real()));  // halves to even, as Python's
}

Value filter_indent(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "indent", given, {"width", "first", "blank"});
  const std::string text = printed(run, value) + "\n";
  const std::int64_t width = bound[0] && bound[0]->is_text() ? 0 : bound.whole(0, 4);
  run.check(width <= 1000, "indent by ", width, " characters; 1000 at most are supported");
  const std::string indent =
      bound[0] && bound[0]->is_text() ? bound.text(0) : std::string(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
  run.charge(text.size() * sizeof(std::string));
  const std::vector<std::string> lines = split_lines(text);
  run.step(lines.size());
  run.check(indent.size() < (1u << 20), "an indent is too long");
  run.charge(lines.size() * indent.size());
  std::string result = bound.is_true(1, false) ? indent : "";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result += "\n";
    if (i > 0 && (!lines[i].empty() || bound.is_true(2, false))) result += indent;
    result += lines[i];
  }
  return Value::text(std::move(result));
}

JsonLayout json_layout(Run& run, const Bound& bound) {
  JsonLayout layout;
  layout.ascii = bound.is_true(0, false);
  layout.sort_keys = bound.is_true(3, false);
  layout.is_indented = bound.has(1);
  if (layout.is_indented) {
    layout.item_separator = std::string(1, ',');
    const bool is_text = bound[1]->is_text();
    const std::int64_t width = is_text ? 0 : bound.whole(1, 0);
    run.check(width <= 1000, "tojson with an indent of ", width, "; 1000 at most are supported");
    layout.indent = is_text ? bound.text(1) : std::string(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
  }
  if (!bound.has(2)) return layout;
  const Items pair = iterate(run, *bound[2]);
  run.check(pair.size() == 2 && pair[0].is_text() && pair[1].is_text(), "tojson wants two texts as separators");
  layout.item_separator = pair[0].as_text();
  layout.key_separator = pair[1].as_text();
  return layout;
}

/// As chat templates know it: without what HTML needs.
Value filter_tojson(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "tojson", given, {"ensure_ascii", "indent", "separators", "sort_keys"});
  return Value::text(to_json(run, value, json_layout(run, bound)));
}

constexpr NamedFilter filters[] = {
    {"default", filter_default}, {"d", filter_default},       {"length", filter_length}, {"count", filter_length},
    {"trim", filter_trim},       {"upper", filter_upper},     {"lower", filter_lower},   {"capitalize", filter_capitalize},
    {"title", filter_title},     {"replace", filter_replace}, {"string", filter_string}, {"safe", filter_safe},
    {"int", filter_int},         {"float", filter_float},     {"abs", filter_abs},       {"round", filter_round},
    {"indent", filter_indent},   {"tojson", filter_tojson}};

Filter find_filter(std::string_view name) {
  for (const NamedFilter& known : filters)
    if (known.name == name) return known.apply;
  return find_sequence_filter(name);
}

}  // namespace

bool is_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value apply_filter(Run& run, std::string_view name, const Value& value, const Arguments& arguments) {
  run.step();
  const Filter filter = find_filter(name);
  run.check(filter != nullptr, "the filter `", name, "` is not supported");
  return filter(run, value, arguments);
}

}  // namespace transformer::jinja
