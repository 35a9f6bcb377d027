#include <transformer/jinja/members.hpp>

#include <algorithm>

#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>

#include <transformer/jinja/arguments.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/print.hpp>
#include <transformer/jinja/text.hpp>

namespace transformer::jinja {

namespace {

Value missing(std::string_view type, std::string_view what) {
  return Value::undefined(lowrank::concat("a value of type ", type, " has no member ", lowrank::name_text(what)));
}

Value loop_cycle(Run& run, const Loop& loop, const Arguments& arguments) {
  run.check(!arguments.positional.empty(), "loop.cycle() needs an argument");
  return arguments.positional[loop.index % arguments.positional.size()];
}

Value loop_changed(Run& run, Loop& loop, const Arguments& arguments) {
  const auto same = [&](const Value& a, const Value& b) { return is_equal(run, a, b); };
  const Items& now = arguments.positional;
  const bool first = loop.last_seen.empty();
  const bool changed = first || !std::equal(now.begin(), now.end(), loop.last_seen.begin(), loop.last_seen.end(), same);
  loop.last_seen = now;
  return Value::boolean(changed);
}

Value loop_member(const Value& value, const std::string& name) {
  const Loop& loop = value.as_loop();
  const auto index = static_cast<std::int64_t>(loop.index), size = static_cast<std::int64_t>(loop.items.size());
  if (name == "index") return Value::integer(index + 1);
  if (name == "index0") return Value::integer(index);
  if (name == "revindex") return Value::integer(size - index);
  if (name == "revindex0") return Value::integer(size - index - 1);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(index + 1 == size);
  if (name == "length") return Value::integer(size);
  if (name == "depth") return Value::integer(1);  // of recursive loops, which are not supported, more
  if (name == "depth0") return Value::integer(0);
  if (name == "previtem") return index > 0 ? loop.items[loop.index - 1] : Value::undefined("there is no previous item");
  if (name == "nextitem") return index + 1 < size ? loop.items[loop.index + 1] : Value::undefined("there is no next item");
  if (name == "cycle")
    return Value::function(name, [value](Run& run, const Arguments& given) { return loop_cycle(run, value.as_loop(), given); });
  if (name == "changed")
    return Value::function(name, [value](Run& run, const Arguments& given) { return loop_changed(run, value.as_loop(), given); });
  return missing("loop", name);
}

/// An index of Python, which may count from the end.
std::optional<std::size_t> position(std::int64_t index, std::size_t size) {
  if (index < 0) index += static_cast<std::int64_t>(size);
  if (index < 0 || index >= static_cast<std::int64_t>(size)) return std::nullopt;
  return static_cast<std::size_t>(index);
}

std::optional<Value> indexed(Run& run, const Value& value, std::int64_t index) {
  if (value.is_text()) {
    run.read(value.as_text().size());
    run.charge(value.as_text().size());
    const auto all = characters(value.as_text());
    const auto found = position(index, all.size());
    return found ? std::optional(run.text(all[*found])) : std::nullopt;
  }
  if (!value.is_sequence()) return std::nullopt;
  const auto found = position(index, value.items().size());
  return found ? std::optional(value.items()[*found]) : std::nullopt;
}

std::int64_t slice_bound(const Run& run, const Value& value, std::int64_t otherwise) {
  if (value.is(Kind::none)) return otherwise;
  check_defined(run, value);
  run.check(value.is_whole(), "a slice wants whole numbers, not ", value.type_name());
  return value.as_integer();
}

/// The positions that a slice takes.
std::vector<std::size_t> taken(Run& run, std::int64_t size, const Value& first, const Value& last, const Value& step) {
  const std::int64_t stride = slice_bound(run, step, 1);
  run.check(stride != 0, "a slice's step is 0");
  const std::int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  const auto clamp = [&](const Value& value, std::int64_t otherwise) {
    if (value.is(Kind::none)) return otherwise;
    std::int64_t at = slice_bound(run, value, 0);
    if (at < 0) at = at < -size ? low : at + size;
    return std::clamp(at, low, high);
  };
  std::int64_t at = clamp(first, stride > 0 ? low : high);
  const std::int64_t end = clamp(last, stride > 0 ? high : low);
  std::vector<std::size_t> positions;
  while (stride > 0 ? at < end : at > end) {
    positions.push_back(static_cast<std::size_t>(at));
    if (std::abs(static_cast<double>(stride)) > static_cast<double>(size)) break;
    at += stride;
  }
  return positions;
}

}  // namespace

Value member(Run& run, const Value& value, const std::string& name) {
  check_defined(run, value);
  if (value.is(Kind::loop)) return loop_member(value, name);
  if (value.is(Kind::space)) {
    const Value* found = value.as_space().find(name);
    return found ? *found : missing("namespace", name);
  }
  if (const auto found = method(value, name)) return *found;
  if (!value.is_dict()) return missing(value.type_name(), name);
  run.step(1 + value.as_dict().entries.size() / 8);
  const Value* found = value.as_dict().find(std::string_view(name));
  return found ? *found : missing("dict", name);
}

Value item(Run& run, const Value& value, const Value& key) {
  check_defined(run, value);
  if (value.is_dict()) {
    run.step(1 + value.as_dict().entries.size() / 8);
    if (const Value* found = value.as_dict().find(key)) return *found;
  }
  if (key.is_whole())
    if (const auto found = indexed(run, value, key.as_integer())) return *found;
  if (!key.is_text()) return missing(value.type_name(), to_source(run, key));
  if (value.is(Kind::space) || value.is(Kind::loop)) return member(run, value, key.as_text());
  if (const auto found = method(value, key.as_text())) return *found;
  return missing(value.type_name(), key.as_text());
}

Value slice(Run& run, const Value& value, const Value& first, const Value& last, const Value& step) {
  check_defined(run, value);
  if (value.is_sequence()) {
    Items items;
    for (const std::size_t i : taken(run, static_cast<std::int64_t>(value.items().size()), first, last, step))
      items.push_back(value.items()[i]);
    run.step(items.size());
    return value.is(Kind::list) ? run.list(std::move(items)) : run.tuple(std::move(items));
  }
  if (!value.is_text()) return missing(value.type_name(), "slice");
  run.charge(value.as_text().size() * 2);
  run.step(value.as_text().size() / 8);
  const auto all = characters(value.as_text());
  std::string text;
  for (const std::size_t i : taken(run, static_cast<std::int64_t>(all.size()), first, last, step)) text += all[i];
  return run.text(std::move(text));
}

}  // namespace transformer::jinja
