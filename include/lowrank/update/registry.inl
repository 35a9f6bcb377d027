#pragma once

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The keys of PEFT's LoraConfig.
LOWRANK_INLINE std::vector<Field> lora_fields() {
  return {{"r", 8.0},
          {"lora_alpha", 8.0},
          {"lora_dropout", 0.0},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"init_lora_weights", true, false},
          {"lora_bias", false},
          {"use_dora", false},
          {"use_rslora", false},
          {"loftq_config", {}, false},
          {"rank_pattern"},
          {"alpha_pattern"},
          {"exclude_modules"},
          {"layers_pattern"},
          {"layers_to_transform"},
          {"modules_to_save"},
          {"target_modules"}};
}

inline constexpr std::string_view lora_names[] = {"lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B"};
inline constexpr std::string_view dora_names[] = {"lora_A.weight", "lora_B.weight",    "lora_magnitude_vector",
                                                  "lora_B.bias",   "lora_embedding_A", "lora_embedding_B"};

}  // namespace detail

LOWRANK_INLINE std::span<const Method> methods() {
  using namespace detail;
  static const Method all[] = {{"LORA", "lora", "", lora_fields, lora_names, 2, {}},  //
                               {"LORA", "dora", "use_dora", lora_fields, dora_names, 3, {}}};
  return all;
}

LOWRANK_INLINE const Method* find_method(std::string_view peft_type, const MethodFields& fields) {
  const Method* found = nullptr;
  for (const Method& method : methods()) {
    if (method.peft_type != peft_type) continue;
    if (method.flag.empty()) {
      if (found == nullptr) found = &method;
      continue;
    }
    const auto flag = fields.find(method.flag);
    if (flag != fields.end() && flag->second == FieldValue(true)) return &method;
  }
  return found;
}

}  // namespace lowrank::inline LOWRANK_ABI
