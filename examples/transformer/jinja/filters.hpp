#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/value.hpp>

/// What stands behind | and behind "is".

namespace transformer::jinja {

/// value | name(arguments). Throws ValueError by name for a filter that is not supported.
Value apply_filter(Run& run, std::string_view name, const Value& value, const Arguments& arguments);

/// value is name(arguments). Likewise.
bool apply_test(Run& run, std::string_view name, const Value& value, const Arguments& arguments);

bool is_filter(std::string_view name);
bool is_test(std::string_view name);

using Filter = Value (*)(Run&, const Value&, const Arguments&);
/// The filter that works on sequences, or null.
Filter find_sequence_filter(std::string_view name);

/// The member of a dotted path, such as function.name or 0.
Value member_of_path(Run& run, Value value, const Value& path);

}  // namespace transformer::jinja
