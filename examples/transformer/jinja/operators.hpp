#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/value.hpp>

/// What Python's operators do with values. Each throws ValueError with the place where Python raises an error.

namespace transformer::jinja {

enum class Operator {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in
};

/// bool(value).
bool is_true(const Value& value);

/// left == right; 1, 1.0 and true are equal.
bool is_equal(Run& run, const Value& left, const Value& right);
/// The same for keys of a mapping.
bool is_same_key(const Value& left, const Value& right);
/// Less than 0, 0 or more: the order of numbers, of texts by code points, of lists item by item.
int order(Run& run, const Value& left, const Value& right);
/// item in container.
bool contains(Run& run, const Value& container, const Value& item);

/// left + right and the other operators of arithmetic.
Value arithmetic(Run& run, Operator op, const Value& left, const Value& right);
/// Any operator but those of arithmetic.
bool comparison(Run& run, Operator op, const Value& left, const Value& right);
/// -value.
Value negative(Run& run, const Value& value);

/// Everything that a for statement goes through: items, keys of a mapping, characters of a text; nothing of an undefined value.
Items iterate(Run& run, const Value& value);

/// len(value), or nothing for what has none.
std::optional<std::int64_t> length_of(Run& run, const Value& value);

/// Refuses to work with an undefined value.
void check_defined(const Run& run, const Value& value);

}  // namespace transformer::jinja
