#pragma once

#include <span>
#include <string_view>

#include <lowrank/update/entry.hpp>

/// The methods that files may hold: a line each.

namespace lowrank::inline LOWRANK_ABI {

/// All of them.
std::span<const Method> methods();
/// The method of that peft_type which the fields choose, or null.
const Method* find_method(std::string_view peft_type, const MethodFields& fields);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/registry.inl>
#endif
