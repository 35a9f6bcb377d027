#pragma once

#include <string_view>

#include <transformer/jinja/value.hpp>

namespace transformer::jinja {

/// A JSON text as a value, its keys in the text's order. `name`: what the text is, for errors. Throws FormatError for what is no JSON,
/// nests deeper than the library's JSON may or has whole numbers beyond 64 bits.
Value from_json(std::string_view text, std::string_view name);

}  // namespace transformer::jinja
