#pragma once

#include <string>
#include <string_view>

#include <lowrank/adapters/config.hpp>

/// adapter_config.json: every key is a field of LoraConfig, known not to change the mathematics and kept, or refused by name.

namespace lowrank::inline LOWRANK_ABI::peft {

/// Reads the text of an adapter_config.json. Throws FormatError naming `file` and the key that is wrong or not supported.
LoraConfig parse_config(std::string_view text, const std::string& file);

/// The text of an adapter_config.json, formatted as PEFT does. Fields that are as they were in the file it came from keep their form.
std::string config_text(const LoraConfig& config);

}  // namespace lowrank::inline LOWRANK_ABI::peft

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/peft_config.inl>
#endif
