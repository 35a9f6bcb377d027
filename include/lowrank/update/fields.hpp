#pragma once

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

/// What a file's configuration says of a method, by the keys that PEFT gives it.

namespace lowrank::inline LOWRANK_ABI {

/// A value of a configuration: none, a truth, a number, a text or a list of texts.
using FieldValue = std::variant<std::monostate, bool, double, std::string, std::vector<std::string>>;
/// Values by key.
using MethodFields = std::map<std::string, FieldValue, std::less<>>;

/// The value of a key, or the fallback where there is none of that type.
template <class T>
T field(const MethodFields& fields, std::string_view key, T fallback) {
  const auto found = fields.find(key);
  const T* const value = found == fields.end() ? nullptr : std::get_if<T>(&found->second);
  return value ? *value : fallback;
}

/// The same of a count. Throws ValueError for a number that is negative, not whole, or beyond 2³¹.
inline Index count_field(const MethodFields& fields, std::string_view key, Index fallback) {
  const auto value = field<double>(fields, key, static_cast<double>(fallback));
  check<ValueError>(is_finite(value) && value >= 0 && value < 0x1p31 && value == std::floor(value), "fields", key, " is ", value,
                    "; it must be a whole number that is not negative");
  return static_cast<Index>(value);
}

/// One key of a method's configuration, and the value that PEFT writes when nobody gives one.
struct Field {
  std::string_view key;
  FieldValue standard = {};
  bool changes_result = true;  ///< false: it says how the training began or went
};

/// The keys of a method, and those by which most methods choose the modules that they train.
inline std::vector<Field> with_module_choices(std::vector<Field> own) {
  for (const char* key : {"exclude_modules", "layers_pattern", "layers_to_transform", "modules_to_save", "target_modules"})
    own.emplace_back().key = key;
  return own;
}

}  // namespace lowrank::inline LOWRANK_ABI
