#pragma once

#include <optional>
#include <string_view>

#include <transformer/jinja/value.hpp>

namespace transformer::jinja {

/// The function that every template knows under that name: range, dict, namespace, raise_exception, strftime_now.
std::optional<Value> global(std::string_view name);

}  // namespace transformer::jinja
