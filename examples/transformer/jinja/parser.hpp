#pragma once

#include <string_view>

#include <transformer/jinja/syntax.hpp>

namespace transformer::jinja {

/// Parses a template. Throws FormatError "[jinja] line …, column …: …" for what is no Jinja, for parts that are nested too deep, and by
/// name for statements that are not supported.
Block parse(std::string_view source);

}  // namespace transformer::jinja
