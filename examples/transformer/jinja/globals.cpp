#include <transformer/jinja/globals.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>

#include <transformer/jinja/arguments.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/print.hpp>

namespace transformer::jinja {

namespace {

constexpr std::int64_t longest_range = 100'000;  // as in Jinja's sandbox

Value make_range(Run& run, const Arguments& given) {
  const Bound bound(run, "range()", given, {"start", "stop", "step"}, 1);
  const std::int64_t start = bound[1] ? bound.whole(0, 0) : 0, stop = bound[1] ? bound.whole(1, 0) : bound.whole(0, 0);
  const std::int64_t step = bound.whole(2, 1);
  run.check(step != 0, "range() with a step of 0");
  constexpr std::int64_t limit = std::int64_t{1} << 62;
  run.check(std::abs(start / 2) < limit / 2 && std::abs(stop / 2) < limit / 2 && std::abs(step / 2) < limit / 2,
            "range() of numbers too large");
  const std::int64_t distance = step > 0 ? stop - start : start - stop;
  const std::int64_t count = distance <= 0 ? 0 : (distance - 1) / (step > 0 ? step : -step) + 1;
  run.check(count <= longest_range, "range() of ", count, " numbers; ", longest_range, " at most are allowed");
  Items items;
  for (std::int64_t i = 0; i < count; ++i) items.push_back(Value::integer(start + i * step));
  return run.list(std::move(items));
}

/// The members that dict() and namespace() are given: of a mapping, then by name.
Entries given_members(Run& run, const Arguments& given, const char* what) {
  Entries entries;
  run.check(given.positional.size() <= 1, what, " takes one mapping and arguments with names");
  if (!given.positional.empty()) {
    run.check(given.positional[0].is_dict(), what, " takes a mapping, not ", given.positional[0].type_name());
    entries = given.positional[0].as_dict().entries;
  }
  for (const auto& named : given.named) {
    const auto is_it = [&](const auto& entry) { return entry.first.is_text() && entry.first.as_text() == named.first; };
    const auto found = std::find_if(entries.begin(), entries.end(), is_it);
    if (found != entries.end())
      found->second = named.second;
    else
      entries.emplace_back(Value::text(named.first), named.second);
  }
  return entries;
}

Value make_dict(Run& run, const Arguments& given) { return run.dict(given_members(run, given, "dict()")); }

Value make_namespace(Run& run, const Arguments& given) {
  Space space;
  for (const auto& [name, value] : given_members(run, given, "namespace()"))
    if (name.is_text()) space.members.emplace_back(name.as_text(), value);
  return run.space(std::move(space));
}

Value raise_exception(Run& run, const Arguments& given) {
  const Bound bound(run, "raise_exception()", given, {"message"}, 1);
  lowrank::fail<lowrank::ValueError>("chat template", to_text(run, *bound[0]));
}

/// The local time in words; formats that every system's strftime knows.
Value tell_time(Run& run, const Arguments& given) {
  const Bound bound(run, "strftime_now()", given, {"format"}, 1);
  const std::string& format = bound.text(0);
  run.check(format.size() <= 256, "a format of strftime_now() has more than 256 bytes");
  const std::time_t now = run.now();
  std::tm local = {};
#if defined(_WIN32)
  localtime_s(&local, &now);
#else
  localtime_r(&now, &local);
#endif
  std::string text;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      text += format[i];
      continue;
    }
    std::string part = "%";
    if (i + 1 < format.size() && format[i + 1] == '-') part += format[++i];
    part += ++i < format.size() ? format[i] : '\0';
    run.check(std::string_view("aAbBcdeFHIjmMpSTuUwWxXyYzZ%").find(part.back()) != std::string_view::npos,
              "strftime_now() does not support ", format);
    std::array<char, 64> word;
    text.append(word.data(), std::strftime(word.data(), word.size(), part.c_str(), &local));
  }
  return run.text(std::move(text));
}

}  // namespace

std::optional<Value> global(std::string_view name) {
  if (name == "range") return Value::function("range", make_range);
  if (name == "dict") return Value::function("dict", make_dict);
  if (name == "namespace") return Value::function("namespace", make_namespace);
  if (name == "raise_exception") return Value::function("raise_exception", raise_exception);
  if (name == "strftime_now") return Value::function("strftime_now", tell_time);
  for (const char* known : {"cycler", "joiner", "lipsum"})
    if (name == known)
      return Value::function(known,
                             [known](Run& run, const Arguments&) -> Value { run.fail("the function `", known, "` is not supported"); });
  return std::nullopt;
}

}  // namespace transformer::jinja
