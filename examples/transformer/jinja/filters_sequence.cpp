#include <algorithm>
#include <charconv>

#include <transformer/jinja/arguments.hpp>
#include <transformer/jinja/filters.hpp>
#include <transformer/jinja/members.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/print.hpp>
#include <transformer/jinja/text.hpp>

namespace transformer::jinja {

namespace {

/// The attribute of an item, or the item itself.
Value attribute_of(Run& run, const Value& item, const Value* path) { return path ? member_of_path(run, item, *path) : item; }

/// What filters compare that take upper case for lower.
Value without_case(Run& run, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_text()) return value;
  run.check(is_ascii(value.as_text()), "an order without case of texts that are not ASCII is not supported; pass case_sensitive=true");
  return run.text(lower(value.as_text()));
}

Value filter_first(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "first", given, {});
  if (value.is(Kind::generator)) {
    Generator& generator = value.as_generator();
    return generator.next < generator.items.size() ? generator.items[generator.next++] : Value::undefined("no first item: there is none");
  }
  const Items items = iterate(run, value);
  return items.empty() ? Value::undefined("no first item: there is none") : items.front();
}

Value filter_last(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "last", given, {});
  run.check(!value.is(Kind::generator), "last of a filter's result; put `list` between");
  const Items items = iterate(run, value);
  return items.empty() ? Value::undefined("no last item: there is none") : items.back();
}

Value filter_list(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "list", given, {});
  return run.list(iterate(run, value));
}

Value filter_reverse(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "reverse", given, {});
  Items items = iterate(run, value);
  std::reverse(items.begin(), items.end());
  if (!value.is_text()) return run.generator(std::move(items));
  std::string text;
  for (const Value& character : items) text += character.as_text();
  return run.text(std::move(text));
}

Value filter_join(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "join", given, {"d", "attribute"});
  const std::string separator = bound[0] ? to_text(run, *bound[0]) : "";
  const Value* path = bound.has(1) ? bound[1] : nullptr;
  std::string text;
  bool first = true;
  for (const Value& item : iterate(run, value)) {
    const std::string part = to_text(run, attribute_of(run, item, path));
    run.charge(separator.size() + part.size());
    if (!first) text += separator;
    text += part;
    first = false;
  }
  return Value::text(std::move(text));
}

Value filter_items(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "items", given, {});
  if (value.is_undefined()) return run.generator({});
  run.check(value.is_dict(), "items wants a mapping, not ", value.type_name());
  return run.generator(entry_pairs(run, value.as_dict()).items());
}

Value filter_dictsort(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "dictsort", given, {"case_sensitive", "by", "reverse"});
  check_defined(run, value);
  run.check(value.is_dict(), "dictsort wants a mapping, not ", value.type_name());
  const std::string by = bound[1] ? bound.text(1) : "key";
  run.check(by == "key" || by == "value", "dictsort sorts by key or value, not by ", by);
  const bool case_sensitive = bound.is_true(0, false), reverse = bound.is_true(2, false);
  Items pairs = entry_pairs(run, value.as_dict()).items();
  const auto key = [&](const Value& pair) { return without_case(run, pair.items()[by == "value"], case_sensitive); };
  std::stable_sort(pairs.begin(), pairs.end(), [&](const Value& a, const Value& b) {
    return reverse ? order(run, key(b), key(a)) < 0 : order(run, key(a), key(b)) < 0;
  });
  return run.list(std::move(pairs));
}

Value filter_sort(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "sort", given, {"reverse", "case_sensitive", "attribute"});
  const bool reverse = bound.is_true(0, false), case_sensitive = bound.is_true(1, false);
  const Value* path = bound.has(2) ? bound[2] : nullptr;
  run.check(!path || !path->is_text() || path->as_text().find(',') == std::string::npos, "sort by several attributes is not supported");
  Items items = iterate(run, value);
  const auto key = [&](const Value& item) { return without_case(run, attribute_of(run, item, path), case_sensitive); };
  std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) {
    return reverse ? order(run, key(b), key(a)) < 0 : order(run, key(a), key(b)) < 0;
  });
  return run.list(std::move(items));
}

Value filter_unique(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "unique", given, {"case_sensitive", "attribute"});
  const Value* path = bound.has(1) ? bound[1] : nullptr;
  Items kept, seen;
  for (const Value& item : iterate(run, value)) {
    const Value key = without_case(run, attribute_of(run, item, path), bound.is_true(0, false));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return is_equal(run, other, key); })) continue;
    seen.push_back(key);
    kept.push_back(item);
  }
  return run.generator(std::move(kept));
}

template <bool greatest>
Value filter_extreme(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, greatest ? "max" : "min", given, {"case_sensitive", "attribute"});
  const Value* path = bound.has(1) ? bound[1] : nullptr;
  const auto key = [&](const Value& item) { return without_case(run, attribute_of(run, item, path), bound.is_true(0, false)); };
  const Items items = iterate(run, value);
  if (items.empty()) return Value::undefined("no least or greatest item: there is none");
  const Value* best = &items.front();
  for (const Value& item : items) {
    const int found = order(run, key(item), key(*best));
    if (greatest ? found > 0 : found < 0) best = &item;
  }
  return *best;
}

Value filter_sum(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "sum", given, {"attribute", "start"});
  const Value* path = bound.has(0) ? bound[0] : nullptr;
  Value total = bound[1] ? *bound[1] : Value::integer(0);
  for (const Value& item : iterate(run, value)) total = arithmetic(run, Operator::add, total, attribute_of(run, item, path));
  return total;
}

Arguments without_first(const Arguments& given, std::size_t count) {
  Arguments rest = given;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<std::ptrdiff_t>(count));
  return rest;
}

Value filter_map(Run& run, const Value& value, const Arguments& given) {
  Items mapped;
  if (given.positional.empty()) {
    const Bound bound(run, "map", given, {"attribute", "default"}, 1);
    for (const Value& item : iterate(run, value)) {
      Value found = member_of_path(run, item, *bound[0]);
      mapped.push_back(found.is_undefined() && bound.has(1) ? *bound[1] : std::move(found));
    }
    return run.generator(std::move(mapped));
  }
  run.check(given.positional[0].is_text(), "map wants the name of a filter, or attribute=");
  const Arguments rest = without_first(given, 1);
  for (const Value& item : iterate(run, value)) mapped.push_back(apply_filter(run, given.positional[0].as_text(), item, rest));
  return run.generator(std::move(mapped));
}

/// select, reject, selectattr and rejectattr: items for which a test holds, or truth where none is named.
template <bool keeps, bool of_attribute>
Value filter_chosen(Run& run, const Value& value, const Arguments& given) {
  constexpr std::size_t before = of_attribute;
  run.check(given.positional.size() >= before, "selectattr wants an attribute");
  const bool has_test = given.positional.size() > before;
  run.check(!has_test || given.positional[before].is_text(), "select wants the name of a test");
  const Arguments rest = has_test ? without_first(given, before + 1) : Arguments{};
  Items kept;
  for (const Value& item : iterate(run, value)) {
    const Value tested = of_attribute ? member_of_path(run, item, given.positional[0]) : item;
    if ((has_test ? apply_test(run, given.positional[before].as_text(), tested, rest) : is_true(tested)) == keeps) kept.push_back(item);
  }
  return run.generator(std::move(kept));
}

struct NamedSequenceFilter {
  std::string_view name;
  Filter apply;
};

constexpr NamedSequenceFilter sequence_filters[] = {{"first", filter_first},
                                                    {"last", filter_last},
                                                    {"list", filter_list},
                                                    {"reverse", filter_reverse},
                                                    {"join", filter_join},
                                                    {"items", filter_items},
                                                    {"dictsort", filter_dictsort},
                                                    {"sort", filter_sort},
                                                    {"unique", filter_unique},
                                                    {"min", filter_extreme<false>},
                                                    {"max", filter_extreme<true>},
                                                    {"sum", filter_sum},
                                                    {"map", filter_map},
                                                    {"select", filter_chosen<true, false>},
                                                    {"reject", filter_chosen<false, false>},
                                                    {"selectattr", filter_chosen<true, true>},
                                                    {"rejectattr", filter_chosen<false, true>}};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  for (const NamedSequenceFilter& known : sequence_filters)
    if (known.name == name) return known.apply;
  return nullptr;
}

Value member_of_path(Run& run, Value value, const Value& path) {
  if (!path.is_text()) return item(run, value, path);
  for (const std::string& part : split(path.as_text(), ".", -1, Side::left)) {
    std::int64_t index = 0;
    const auto [end, failure] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = failure == std::errc() && end == part.data() + part.size() && part[0] != '-';
    value = item(run, value, is_index ? Value::integer(index) : Value::text(part));
  }
  return value;
}

}  // namespace transformer::jinja
