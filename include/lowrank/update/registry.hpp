#pragma once

#include <span>
#include <string_view>

#include <lowrank/update/entry.hpp>

/// The methods that files may hold: a line each in registry.inl, and those of the program itself.

namespace lowrank::inline LOWRANK_ABI {

/// All of them. Valid until the next register_method().
std::span<const Method> methods();

/// Adds a method of the program's own: from then on configurations with its peft_type are read and written, and its updates made, by the
/// calls that all methods have (peft::load, peft::save, new_updates, apply, adapter_of).
///
/// To be called before adapters are used, while no other thread uses the registry. Throws ValueError for a method that is not whole, and
/// where its name, or its peft_type with that flag, is taken.
void register_method(const Method& method);

/// The method of that peft_type which the fields choose, or null.
const Method* find_method(std::string_view peft_type, const MethodFields& fields);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/registry.inl>
#endif
