#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/io/json.hpp>
#include <lowrank/update/registry.hpp>

namespace lowrank::inline LOWRANK_ABI::peft {

namespace detail {

using json::Json;

// clang-format off
/// Keys that LoraConfig has members for, of every method and of LoRA.
inline constexpr std::array member_keys{
    "peft_type", "fan_in_fan_out", "bias", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "modules_to_save", "base_model_name_or_path", "task_type"};
inline constexpr std::array lora_member_keys{"r",         "lora_alpha",              "lora_dropout",       "use_rslora",
                                            "lora_bias", "trainable_token_indices", "ensure_weight_tying"};
/// Keys that say where an adapter comes from or how its training began: kept whatever they hold.
inline constexpr std::array inert_keys{
    "auto_mapping", "revision", "peft_version", "inference_mode", "megatron_core", "qalora_group_size", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "runtime_config", "init_weights", "init_ia3_weights"};
// clang-format on

template <class Keys>
bool is_among(const Keys& keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

LOWRANK_INLINE bool is_member(std::string_view peft_type, std::string_view key) {
  return is_among(member_keys, key) || (peft_type == "LORA" && is_among(lora_member_keys, key));
}

/// The keys of all methods of that type.
LOWRANK_INLINE std::vector<Field> fields_of(std::string_view peft_type) {
  std::vector<Field> all;
  for (const Method& method : methods()) {
    if (method.peft_type != peft_type) continue;
    for (const Field& field : method.fields())
      if (std::none_of(all.begin(), all.end(), [&](const Field& known) { return known.key == field.key; })) all.push_back(field);
  }
  return all;
}

/// Reads one field after the other; errors name file, key and value.
class ConfigReader {
 public:
  ConfigReader(const Json& config, const std::string& file, const std::vector<std::string>& ranks, const std::vector<std::string>& alphas)
      : config_(config), file_(file), rank_keys_(ranks), alpha_keys_(alphas) {}

  LoraConfig read() const {
    LoraConfig config;
    config.peft_type = config_.at("peft_type").get<std::string>();
    if (config.peft_type == "LORA") read_lora(config);
    read_fields(config);
    config.fan_in_fan_out = flag("fan_in_fan_out");
    config.bias = text("bias").value_or("none");
    const std::string only = lower(config.peft_type) + "_only";  // of AdaLoRA lora_only
    const bool is_only = config.bias.ends_with("_only") && only.ends_with(lower(config.bias));
    require(config.bias == "none" || config.bias == "all" || is_only, "bias", concat("none, all or ", only));
    config.target_modules = names("target_modules");
    config.exclude_modules = names("exclude_modules");
    config.layers_to_transform = layers();
    const ModuleNames pattern = names("layers_pattern");
    if (const auto* one = std::get_if<std::string>(&pattern); one && !one->empty()) config.layers_pattern = {*one};
    if (const auto* list = std::get_if<std::vector<std::string>>(&pattern)) config.layers_pattern = *list;
    read_patterns(config);
    const ModuleNames saved = names("modules_to_save");
    require(!std::holds_alternative<std::string>(saved), "modules_to_save", "a list of names");
    if (const auto* list = std::get_if<std::vector<std::string>>(&saved)) config.modules_to_save = *list;
    config.base_model = text("base_model_name_or_path");
    config.task_type = text("task_type");
    for (const auto& [key, value] : config_.items()) config.json[key] = json::text_of(value);
    return config;
  }

 private:
  void read_lora(LoraConfig& config) const {
    config.rank = whole("r", config.rank);
    config.alpha = number("lora_alpha", config.alpha);
    config.dropout = number("lora_dropout", config.dropout);
    require(config.alpha != 0, "lora_alpha", "a number other than 0, with which the adapter does nothing");
    require(config.dropout >= 0 && config.dropout < 1, "lora_dropout", "at least 0 and below 1");
    config.use_rslora = flag("use_rslora");
    config.lora_bias = flag("lora_bias");
    config.ensure_weight_tying = flag("ensure_weight_tying");
    const Json* tokens = find("trainable_token_indices");
    if (tokens && !tokens->is_object()) config.trained_tokens.emplace("", token_list(*tokens));
    if (tokens && tokens->is_object())
      for (const auto& [name, list] : tokens->items()) config.trained_tokens.emplace(name, token_list(list));
    if (config.trained_tokens.contains("") && config.trained_tokens[""].empty()) config.trained_tokens.clear();
  }
  /// Distinct tokens in the order of their rows.
  std::vector<Index> token_list(const Json& list) const {
    constexpr const char* key = "trainable_token_indices";
    require(list.is_array(), key, "a list of tokens, or an object of such lists by module");
    std::vector<Index> tokens;
    for (const Json& item : list) {
      const auto token = json::as_index(item);
      require(token && *token <= std::numeric_limits<std::int32_t>::max(), key, "a list of whole numbers");
      require(std::find(tokens.begin(), tokens.end(), *token) == tokens.end(), key, "a list that names each token once");
      tokens.push_back(*token);
    }
    return tokens;
  }
  /// What the method has beside the members of LoraConfig.
  void read_fields(LoraConfig& config) const {
    for (const Field& field : fields_of(config.peft_type)) {
      const std::string key(field.key);
      const Json* value = find(key.c_str());
      if (!value || is_member(config.peft_type, key)) continue;
      FieldValue read = field_value(field, *value);
      if (field.changes_result && read != field.standard) config.fields[key] = std::move(read);
    }
  }
  /// A value of the type that its key has; keys that say how numbers begin may be true, false or a name, those without a standard value are
  /// names.
  FieldValue field_value(const Field& field, const Json& value) const {
    const std::string key(field.key);
    const bool is_beginning = key.starts_with("init_") && !std::holds_alternative<double>(field.standard);
    if (is_beginning && value.is_string()) return value.get<std::string>();
    if (std::holds_alternative<bool>(field.standard)) return flag(key.c_str());
    if (std::holds_alternative<double>(field.standard)) return finite(value, key.c_str());
    if (std::holds_alternative<std::string>(field.standard)) return *text(key.c_str());
    if (!field.changes_result) return {};  // notes on how the training began
    const ModuleNames list = names(key.c_str());
    if (const auto* one = std::get_if<std::string>(&list)) return *one;
    return std::get<std::vector<std::string>>(list);
  }

  /// The value of a key, or null when it is absent or null.
  const Json* find(const char* key) const {
    const auto found = config_.find(key);
    return found == config_.end() || found->is_null() ? nullptr : &*found;
  }
  void require(bool condition, const char* key, std::string_view expected) const {
    if (!condition) fail<FormatError>("peft", file_, ": ", key, " is ", json::excerpt(config_.at(key)), " but must be ", expected);
  }

  Index positive(const Json& value, const char* key) const {
    const auto size = json::as_index(value);
    require(size && *size > 0 && *size <= std::numeric_limits<std::int32_t>::max(), key, "a positive whole number, for every module");
    return *size;
  }
  double finite(const Json& value, const char* key) const {
    require(value.is_number() && is_finite(value.get<double>()), key, "a finite number, for every module");
    return value.get<double>();
  }
  Index whole(const char* key, Index fallback) const { return find(key) ? positive(*find(key), key) : fallback; }
  double number(const char* key, double fallback) const { return find(key) ? finite(*find(key), key) : fallback; }
  bool flag(const char* key) const {
    const Json* value = find(key);
    require(!value || value->is_boolean(), key, "true or false");
    return value && value->get<bool>();
  }
  std::optional<std::string> text(const char* key) const {
    const Json* value = find(key);
    require(!value || value->is_string(), key, "a string");
    return value ? std::optional(value->get<std::string>()) : std::nullopt;
  }
  ModuleNames names(const char* key) const {
    const Json* value = find(key);
    if (!value) return {};
    if (value->is_string()) return value->get<std::string>();
    require(value->is_array(), key, "a string or a list of strings");
    std::vector<std::string> list;
    for (const Json& item : *value) {
      require(item.is_string() && !item.get_ref<const std::string&>().empty(), key, "a string or a list of strings");
      list.push_back(item.get<std::string>());
    }
    return list;
  }
  std::vector<Index> layers() const {
    constexpr const char* key = "layers_to_transform";
    const Json* value = find(key);
    std::vector<Index> numbers;
    if (!value) return numbers;
    const Json list = value->is_array() ? *value : Json::array({*value});
    for (const Json& item : list) {
      const auto index = json::as_index(item);
      require(index.has_value(), key, "a whole number or a list of them");
      numbers.push_back(*index);
    }
    return numbers;
  }
  static std::string lower(std::string text) {
    for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return text;
  }
  /// A list of truths says which of its directions a tensor kept; how many, or nothing for another value.
  static std::optional<Index> ranks_left(const Json& value) {
    Index count = 0;
    for (const Json& item : value) {
      if (!item.is_boolean()) return std::nullopt;
      count += item.get<bool>() ? 1 : 0;
    }
    return value.is_array() ? std::optional(count) : std::nullopt;
  }
  void read_patterns(LoraConfig& config) const {
    for (const char* key : {"rank_pattern", "alpha_pattern"}) require(!find(key) || find(key)->is_object(), key, "an object");
    for (const std::string& key : rank_keys_) {
      const Json& value = config_.at("rank_pattern").at(key);
      if (const auto left = ranks_left(value)) {
        config.rank_pattern.emplace_back(key.substr(0, key.rfind('.')), *left);
        continue;
      }
      config.rank_pattern.emplace_back(key, positive(value, "rank_pattern"));
    }
    for (const std::string& key : alpha_keys_) {
      const double alpha = finite(config_.at("alpha_pattern").at(key), "alpha_pattern");
      require(alpha != 0, "alpha_pattern", "without 0, with which the adapter does nothing there");
      config.alpha_pattern.emplace_back(key, alpha);
    }
  }

  const Json& config_;
  const std::string& file_;
  const std::vector<std::string>&rank_keys_, &alpha_keys_;
};

/// Null, false and what is empty switch a feature off, known or not.
LOWRANK_INLINE bool is_off(const Json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  return value.is_null() || ((value.is_array() || value.is_object()) && value.empty()) || json::is_text(value, {""});
}

/// Throws FormatError for an initialization that changes the base, so that the adapter is right over the changed one only.
LOWRANK_INLINE void check_init(const Json& init, const std::string& file) {
  if (init.is_boolean() || init.is_null() || json::is_text(init, {"gaussian", "eva", "orthogonal", "mica"})) return;
  const std::string name = init.is_string() ? init.get<std::string>() : std::string();
  const bool is_moved = name.starts_with("pissa") || name == "olora" || name == "corda" || name == "lora_ga";
  fail<FormatError>(
      "peft", file, ": init_lora_weights is ", json::excerpt(init),
      is_moved
          ? ", which moved a part of the base's weights into the adapter; save it in PEFT with path_initial_model_for_weight_conversion"
      : name == "loftq"
          ? ", so the adapter makes up for rounding and is right over the weights that LoftQ left only; save those in PEFT with "
            "model.unload().save_pretrained(), give them as the model, and set init_lora_weights to true"
          : ", which is not known here; it may change the base's weights");
}

/// Throws unless the configuration is that of a registered method and each of its keys is understood, without effect, or off.
LOWRANK_INLINE void refuse_unsupported(const Json& config, const std::string& file) {
  const Json type = json::member(config, "peft_type");
  const std::vector<Field> fields = fields_of(type.is_string() ? type.get<std::string>() : std::string());
  if (fields.empty()) {
    std::string known;
    for (const Method& method : methods())
      if (known.find(method.peft_type) == known.npos) known += concat(known.empty() ? "" : ", ", method.peft_type);
    fail<FormatError>("peft", file, ": peft_type is ", json::excerpt(type), " but only ", known, " are read");
  }
  const auto is_known = [&](std::string_view key) {
    return is_among(member_keys, key) || is_among(inert_keys, key) ||
           std::any_of(fields.begin(), fields.end(), [&](const Field& field) { return field.key == key; });
  };
  for (const auto& [key, value] : config.items()) {
    if (key == "init_lora_weights")
      check_init(value, file);
    else if (!is_known(key))
      check<FormatError>(is_off(value), "peft", file, ": ", name_text(key), " is ", json::excerpt(value),
                         ", which is not supported and may change what the adapter computes");
  }
}

LOWRANK_INLINE Json to_json(const ModuleNames& names) {
  if (const auto* list = std::get_if<std::vector<std::string>>(&names)) return *list;
  if (const auto* text = std::get_if<std::string>(&names)) return *text;
  return nullptr;
}

LOWRANK_INLINE Json to_json(const std::optional<std::string>& text) { return text ? Json(*text) : Json(); }

LOWRANK_INLINE Json to_json(Index number) { return number; }

/// Whole numbers without a decimal point, as they are usually written.
LOWRANK_INLINE Json to_json(double number) {
  return std::abs(number) < 1e15 && number == std::floor(number) ? Json(static_cast<std::int64_t>(number)) : Json(number);
}

template <class T>
Json to_json(const std::vector<T>& list) {
  return list.empty() ? Json() : Json(list);
}

template <class T>
Json to_json(const Patterns<T>& patterns) {
  Json object = Json::object();
  for (const auto& [key, value] : patterns)
    if (!object.contains(key)) object[key] = to_json(value);
  return object;
}

LOWRANK_INLINE Json to_json(const std::map<std::string, std::vector<Index>>& tokens) {
  if (tokens.empty()) return {};
  return tokens.size() == 1 && tokens.contains("") ? Json(tokens.at("")) : Json(tokens);
}

LOWRANK_INLINE Json to_json(const FieldValue& value) {
  return std::visit(
      [](const auto& of_type) {
        using T = std::decay_t<decltype(of_type)>;
        if constexpr (std::is_same_v<T, std::monostate>)
          return Json();
        else if constexpr (std::is_same_v<T, double>)
          return to_json(of_type);
        else
          return Json(of_type);
      },
      value);
}

/// Patterns in the order in which a file has them.
template <class T>
Patterns<T> by_key(Patterns<T> patterns) {
  std::stable_sort(patterns.begin(), patterns.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return patterns;
}

/// What PEFT writes for a fresh adapter of that type.
LOWRANK_INLINE Json default_config(const std::string& peft_type) {
  Json config{{"peft_type", peft_type}, {"auto_mapping", {}}, {"base_model_name_or_path", {}}, {"inference_mode", true}, {"revision", {}},
              {"target_modules", {}},   {"task_type", {}}};
  for (const Field& field : fields_of(peft_type)) config[std::string(field.key)] = to_json(field.standard);
  for (const char* key : {"rank_pattern", "alpha_pattern", "loftq_config"})
    if (config.contains(key)) config[key] = Json::object();
  if (config.contains("lora_dropout")) config["lora_dropout"] = 0.0;
  return config;
}

}  // namespace detail

LOWRANK_INLINE LoraConfig parse_config(std::string_view text, const std::string& file) {
  json::MemberKeys ranks{"rank_pattern", {}}, alphas{"alpha_pattern", {}};
  const json::Json config = json::parse(text, "peft", file, [&](int depth, const std::string& key) {
    ranks(depth, key);
    alphas(depth, key);
  });
  check<FormatError>(config.is_object(), "peft", file, ": must be a JSON object");
  detail::refuse_unsupported(config, file);
  return detail::ConfigReader(config, file, ranks.keys, alphas.keys).read();
}

LOWRANK_INLINE std::string config_text(const LoraConfig& config) {
  using detail::to_json;
  json::Json out = config.json.empty() ? detail::default_config(config.peft_type) : json::Json::object();
  for (const auto& [key, value] : config.json) out[key] = json::parse(value, "peft", "the adapter's own configuration");
  const LoraConfig before = parse_config(json::text_of(out), "the adapter's own configuration");
  const auto put = [&](const char* key, const auto& was, const auto& is) {
    if (was != is) out[key] = to_json(is);
  };
  const auto put_plain = [&](const char* key, const auto& was, const auto& is) {
    if (was != is) out[key] = is;
  };
  if (config.peft_type == "LORA") {
    put("r", before.rank, config.rank);
    put("lora_alpha", before.alpha, config.alpha);
    put_plain("lora_dropout", before.dropout, config.dropout);
    put_plain("use_rslora", before.use_rslora, config.use_rslora);
    put_plain("lora_bias", before.lora_bias, config.lora_bias);
    put_plain("ensure_weight_tying", before.ensure_weight_tying, config.ensure_weight_tying);
    put("trainable_token_indices", before.trained_tokens, config.trained_tokens);
  }
  for (const Field& field : detail::fields_of(config.peft_type)) {
    if (detail::is_member(config.peft_type, field.key)) continue;
    const auto value = [&](const LoraConfig& of) {
      const auto found = of.fields.find(field.key);
      return found == of.fields.end() ? field.standard : found->second;
    };
    if (value(before) != value(config)) out[std::string(field.key)] = to_json(value(config));
  }
  put_plain("fan_in_fan_out", before.fan_in_fan_out, config.fan_in_fan_out);
  put_plain("bias", before.bias, config.bias);
  put("target_modules", before.target_modules, config.target_modules);
  put("exclude_modules", before.exclude_modules, config.exclude_modules);
  put("layers_to_transform", before.layers_to_transform, config.layers_to_transform);
  put("layers_pattern", before.layers_pattern, config.layers_pattern);
  put("rank_pattern", detail::by_key(before.rank_pattern), detail::by_key(config.rank_pattern));
  put("alpha_pattern", detail::by_key(before.alpha_pattern), detail::by_key(config.alpha_pattern));
  put("modules_to_save", before.modules_to_save, config.modules_to_save);
  put("base_model_name_or_path", before.base_model, config.base_model);
  put("task_type", before.task_type, config.task_type);
  return json::text_of(out, 2, true);
}

}  // namespace lowrank::inline LOWRANK_ABI::peft
