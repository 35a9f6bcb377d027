#include <algorithm>
#include <array>

#include <transformer/jinja/arguments.hpp>
#include <transformer/jinja/members.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/text.hpp>

namespace transformer::jinja {

namespace {

using Method = Value (*)(Run&, const Value&, const Arguments&);
struct NamedMethod {
  std::string_view name;
  Method call;
};

const std::string& ascii_text(Run& run, const Value& value, const char* what) {
  run.read(value.as_text().size());
  run.check(is_ascii(value.as_text()), what, " of a text that is not ASCII is not supported");
  return value.as_text();
}

Value pieces(Run& run, std::vector<std::string> parts) {
  Items items;
  for (std::string& part : parts) items.push_back(run.text(std::move(part)));
  return run.list(std::move(items));
}

template <Side side>
Value strip_text(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "strip()", given, {"chars"});
  run.read(value.as_text().size() * (bound.has(0) ? bound.text(0).size() : 1));
  if (!bound.has(0)) return run.text(std::string(strip(value.as_text(), side)));
  const std::string_view set = bound.text(0);
  return run.text(std::string(strip(value.as_text(), side, &set)));
}

template <Side from>
Value split_text(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "split()", given, {"sep", "maxsplit"});
  const std::string& text = value.as_text();
  const std::int64_t most = bound.whole(1, -1);
  run.read(text.size());
  if (!bound.has(0)) {
    run.charge(text.size() / 2 * sizeof(std::string));
    return pieces(run, split_blanks(text, most, from));
  }
  run.check(!bound.text(0).empty(), "split() at an empty text");
  run.read(text.size() * bound.text(0).size());  // at worst
  run.charge(static_cast<std::uint64_t>(occurrences(text, bound.text(0), most)) * sizeof(std::string));
  return pieces(run, split(text, bound.text(0), most, from));
}

Value split_text_lines(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "splitlines()", given, {"keepends"});
  run.charge(value.as_text().size() * sizeof(std::string));
  return pieces(run, split_lines(value.as_text(), bound.is_true(0, false)));
}

/// startswith and endswith, of a text or one of several.
template <bool at_end>
Value has_edge(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, at_end ? "endswith()" : "startswith()", given, {"affix"}, 1);
  const std::string& text = value.as_text();
  const auto matches = [&](const std::string& edge) { return at_end ? text.ends_with(edge) : text.starts_with(edge); };
  if (!bound[0]->is(Kind::tuple)) return Value::boolean(matches(bound.text(0)));
  const Items& edges = bound[0]->items();
  run.step(edges.size());
  return Value::boolean(std::any_of(edges.begin(), edges.end(), [&](const Value& edge) {
    run.check(edge.is_text(), "startswith() wants texts, not ", edge.type_name());
    return matches(edge.as_text());
  }));
}

template <bool at_end>
Value remove_edge(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, at_end ? "removesuffix()" : "removeprefix()", given, {"affix"}, 1);
  const std::string &text = value.as_text(), &edge = bound.text(0);
  if (!(at_end ? text.ends_with(edge) : text.starts_with(edge))) return value;
  return run.text(at_end ? text.substr(0, text.size() - edge.size()) : text.substr(edge.size()));
}

Value replace_text(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "replace()", given, {"old", "new", "count"}, 2);
  return Value::text(replace_counted(run, value.as_text(), bound.text(0), bound.text(1), bound.whole(2, -1)));
}

/// find and rfind: code points before the first or last occurrence, or -1.
template <bool last>
Value find_text(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "find()", given, {"sub"}, 1);
  const std::string& text = value.as_text();
  run.read(text.size() * std::max<std::size_t>(bound.text(0).size(), 1));
  const std::size_t found = last ? text.rfind(bound.text(0)) : text.find(bound.text(0));
  if (found == std::string::npos) return Value::integer(-1);
  return Value::integer(static_cast<std::int64_t>(character_count(std::string_view(text).substr(0, found))));
}

Value count_text(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "count()", given, {"sub"}, 1);
  const std::string &text = value.as_text(), &part = bound.text(0);
  run.read(text.size() * std::max<std::size_t>(part.size(), 1));
  if (part.empty()) return Value::integer(static_cast<std::int64_t>(character_count(text)) + 1);
  return Value::integer(occurrences(text, part));
}

Value join_text(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "join()", given, {"iterable"}, 1);
  std::string text;
  bool first = true;
  for (const Value& item : iterate(run, *bound[0])) {
    run.check(item.is_text(), "join() wants texts, not ", item.type_name());
    run.charge(value.as_text().size() + item.as_text().size());
    if (!first) text += value.as_text();
    text += item.as_text();
    first = false;
  }
  return Value::text(std::move(text));
}

template <std::string (*change)(std::string)>
Value changed_text(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "a change of case", given, {});
  return run.text(change(ascii_text(run, value, "a change of case")));
}

template <bool (*holds)(char)>
Value all_characters(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "a test of characters", given, {});
  const std::string& text = ascii_text(run, value, "a test of characters");
  return Value::boolean(!text.empty() && std::all_of(text.begin(), text.end(), holds));
}

bool is_digit_character(char c) { return c >= '0' && c <= '9'; }
bool is_letter_character(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_word_character(char c) { return is_digit_character(c) || is_letter_character(c); }
bool is_blank_character(char c) { return is_blank(static_cast<unsigned char>(c)); }

constexpr NamedMethod text_methods[] = {{"strip", strip_text<Side::both>},
                                        {"lstrip", strip_text<Side::left>},
                                        {"rstrip", strip_text<Side::right>},
                                        {"split", split_text<Side::left>},
                                        {"rsplit", split_text<Side::right>},
                                        {"splitlines", split_text_lines},
                                        {"startswith", has_edge<false>},
                                        {"endswith", has_edge<true>},
                                        {"removeprefix", remove_edge<false>},
                                        {"removesuffix", remove_edge<true>},
                                        {"replace", replace_text},
                                        {"find", find_text<false>},
                                        {"rfind", find_text<true>},
                                        {"count", count_text},
                                        {"join", join_text},
                                        {"upper", changed_text<upper>},
                                        {"lower", changed_text<lower>},
                                        {"capitalize", changed_text<capitalize>},
                                        {"title", changed_text<title>},
                                        {"isdigit", all_characters<is_digit_character>},
                                        {"isalpha", all_characters<is_letter_character>},
                                        {"isalnum", all_characters<is_word_character>},
                                        {"isspace", all_characters<is_blank_character>},
                                        {"casefold", nullptr},
                                        {"center", nullptr},
                                        {"encode", nullptr},
                                        {"expandtabs", nullptr},
                                        {"format", nullptr},
                                        {"format_map", nullptr},
                                        {"index", nullptr},
                                        {"isascii", nullptr},
                                        {"isdecimal", nullptr},
                                        {"isidentifier", nullptr},
                                        {"islower", nullptr},
                                        {"isnumeric", nullptr},
                                        {"isprintable", nullptr},
                                        {"istitle", nullptr},
                                        {"isupper", nullptr},
                                        {"ljust", nullptr},
                                        {"maketrans", nullptr},
                                        {"partition", nullptr},
                                        {"rindex", nullptr},
                                        {"rjust", nullptr},
                                        {"rpartition", nullptr},
                                        {"swapcase", nullptr},
                                        {"translate", nullptr},
                                        {"zfill", nullptr}};

Value get_entry(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "get()", given, {"key", "default"}, 1);
  run.step(1 + value.as_dict().entries.size() / 8);
  if (const Value* found = value.as_dict().find(*bound[0])) return *found;
  return bound[1] ? *bound[1] : Value();
}

Value all_entries(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "items()", given, {});
  return entry_pairs(run, value.as_dict());
}

Value all_keys(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "keys()", given, {});
  return run.list(iterate(run, value));
}

Value all_values(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "values()", given, {});
  Items values;
  for (const auto& entry : value.as_dict().entries) values.push_back(entry.second);
  return run.list(std::move(values));
}

Value same_value(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "copy()", given, {});
  return value;
}

// Those that change a mapping or list are refused by Jinja's sandbox too.
constexpr NamedMethod dict_methods[] = {{"get", get_entry},   {"items", all_entries}, {"keys", all_keys},    {"values", all_values},
                                        {"copy", same_value}, {"clear", nullptr},     {"fromkeys", nullptr}, {"setdefault", nullptr},
                                        {"pop", nullptr},     {"popitem", nullptr},   {"update", nullptr}};

Value index_of(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "index()", given, {"value"}, 1);
  const Items& items = value.items();
  const auto found = std::find_if(items.begin(), items.end(), [&](const Value& item) { return is_equal(run, item, *bound[0]); });
  run.check(found != items.end(), "index() of what the list does not hold");
  return Value::integer(found - items.begin());
}

Value count_of(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "count()", given, {"value"}, 1);
  const Items& items = value.items();
  return Value::integer(std::count_if(items.begin(), items.end(), [&](const Value& item) { return is_equal(run, item, *bound[0]); }));
}

constexpr NamedMethod list_methods[] = {{"index", index_of}, {"count", count_of},  {"copy", same_value}, {"append", nullptr},
                                        {"clear", nullptr},  {"extend", nullptr},  {"insert", nullptr},  {"pop", nullptr},
                                        {"remove", nullptr}, {"reverse", nullptr}, {"sort", nullptr}};

template <std::size_t count>
std::optional<Value> find_method(const NamedMethod (&methods)[count], const Value& value, std::string_view name) {
  for (const NamedMethod& known : methods)
    if (known.name == name)
      return Value::function(std::string(name), [&known, value](Run& run, const Arguments& given) {
        run.check(known.call != nullptr, "the method `", known.name, "` of a ", value.type_name(), " is not supported");
        return known.call(run, value, given);
      });
  return std::nullopt;
}

}  // namespace

Value entry_pairs(Run& run, const Dict& dict) {
  Items pairs;
  for (const auto& [key, value] : dict.entries) pairs.push_back(run.tuple({key, value}));
  return run.list(std::move(pairs));
}

std::string replace_counted(Run& run, const std::string& text, const std::string& old, const std::string& fresh, std::int64_t most) {
  run.read(text.size() * std::max<std::size_t>(old.size(), 1));  // at worst
  std::int64_t count = old.empty() ? static_cast<std::int64_t>(character_count(text)) + 1 : occurrences(text, old, most);
  if (most >= 0) count = std::min(count, most);
  run.step(static_cast<std::uint64_t>(count));
  run.charge(text.size());
  run.check(fresh.empty() || static_cast<std::uint64_t>(count) < (std::uint64_t{1} << 40) / fresh.size(),
            "replace() makes a text too large");
  run.charge(static_cast<std::uint64_t>(count) * fresh.size());
  return replace(text, old, fresh, most);
}

std::optional<Value> method(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::text:
      return find_method(text_methods, value, name);
    case Kind::dict:
      return find_method(dict_methods, value, name);
    case Kind::list:
      return find_method(list_methods, value, name);
    case Kind::tuple:
      return name == "index" || name == "count" ? find_method(list_methods, value, name) : std::nullopt;
    default:
      return std::nullopt;
  }
}

}  // namespace transformer::jinja
