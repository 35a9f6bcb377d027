#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/value.hpp>

/// What belongs to a value: members, methods, items and slices.

namespace transformer::jinja {

/// value.name: a method, else a member of a mapping or namespace, else undefined. Throws ValueError for an undefined value's.
Value member(Run& run, const Value& value, const std::string& name);

/// value[key]: an item, else a method of that name, else undefined. Throws ValueError for an undefined value's.
Value item(Run& run, const Value& value, const Value& key);

/// value[first:last:step]; none: left out.
Value slice(Run& run, const Value& value, const Value& first, const Value& last, const Value& step);

/// A method of the value's type, ready to be called; one that Python has and this interpreter does not fails when called.
std::optional<Value> method(const Value& value, std::string_view name);

/// The pairs of a mapping, as a list of tuples.
Value entry_pairs(Run& run, const Dict& dict);

/// str.replace within the limits.
std::string replace_counted(Run& run, const std::string& text, const std::string& old, const std::string& fresh, std::int64_t most);

}  // namespace transformer::jinja
