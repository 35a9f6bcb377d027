#pragma once

#include <string>
#include <string_view>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/value.hpp>

/// Values as text: str(), repr() and json.dumps() of Python.

namespace transformer::jinja {

/// str(value); an undefined value is empty.
std::string to_text(Run& run, const Value& value);

/// repr(value).
std::string to_source(Run& run, const Value& value);

/// The shortest digits that read back as the same number, as Python writes them.
std::string real_text(double value);

/// How json.dumps lays a value out.
struct JsonLayout {
  std::string item_separator = ", ", key_separator = ": ";
  std::string indent = {};  ///< of a level, where is_indented
  bool is_indented = false, ascii = false, sort_keys = false;
};

/// json.dumps(value). Throws ValueError for what JSON does not know.
std::string to_json(Run& run, const Value& value, const JsonLayout& layout);

}  // namespace transformer::jinja
