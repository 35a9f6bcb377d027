#pragma once

#include <algorithm>
#include <utility>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE bool ends_with_name(std::string_view path, std::string_view name) {
  return path == name || (path.size() > name.size() && path.ends_with(name) && path[path.size() - name.size() - 1] == '.');
}

LOWRANK_INLINE bool contains_name(std::string_view path, std::string_view name) {
  if (name.empty()) return false;
  for (std::size_t at = path.find(name); at != std::string_view::npos; at = path.find(name, at + 1)) {
    const std::size_t end = at + name.size();
    if ((at == 0 || path[at - 1] == '.') && (end == path.size() || path[end] == '.')) return true;
  }
  return false;
}

LOWRANK_INLINE bool names_saved(std::span<const std::string> names, std::string_view path) {
  for (std::size_t end = path.size(); end != path.npos && end > 0; end = path.rfind('.', end - 1))
    if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return !name.empty() && path.substr(0, end).ends_with(name); }))
      return true;
  return false;
}

LOWRANK_INLINE std::optional<Index> rows_saved(const Adapter& adapter, std::string_view path) {
  for (const StoredTensor& tensor : adapter.saved)
    for (const std::string_view end : {".weight", ".base_layer.weight", ".token_adapter.base_layer.weight"})
      if (tensor.name == concat(path, end) && tensor.shape.size() == 2) return tensor.shape[0];
  return std::nullopt;
}

LOWRANK_INLINE bool is_all_linear(const ModuleNames& names) {
  const auto* text = std::get_if<std::string>(&names);
  constexpr std::string_view keyword = "all-linear";
  return text && std::equal(text->begin(), text->end(), keyword.begin(), keyword.end(),
                            [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

LOWRANK_INLINE NameMatcher::NameMatcher(const ModuleNames& names, std::string_view field) : names_(names), all_(is_all_linear(names)) {
  if (const auto* text = std::get_if<std::string>(&names_); text && !all_) pattern_.emplace(*text, field);
}

LOWRANK_INLINE bool NameMatcher::is_exact(std::string_view path) const {
  return is_list() && std::find(list().begin(), list().end(), path) != list().end();
}

LOWRANK_INLINE bool NameMatcher::matches(std::string_view path) const {
  if (all_) return true;
  if (pattern_) return pattern_->matches(path);
  return is_list() && std::any_of(list().begin(), list().end(), [&](const auto& name) { return ends_with_name(path, name); });
}

}  // namespace detail

LOWRANK_INLINE TargetMatcher::TargetMatcher(const LoraConfig& config)
    : targets_(config.target_modules, "target_modules"),
      excluded_(config.exclude_modules, "exclude_modules"),
      saved_(config.modules_to_save),
      layers_(config.layers_to_transform) {
  for (const std::string& name : config.layers_pattern) layer_lists_.push_back(PathPattern::ending(name, "layers_pattern"));
}

LOWRANK_INLINE bool TargetMatcher::operator()(std::string_view path) const {
  if (excluded_.matches(path)) return false;
  if (std::any_of(saved_.begin(), saved_.end(), [&](const auto& name) { return detail::contains_name(path, name); })) return false;
  if (targets_.is_exact(path)) return true;
  if (!targets_.matches(path)) return false;
  return !targets_.is_list() || layers_.empty() || in_chosen_layer(path);
}

LOWRANK_INLINE bool TargetMatcher::in_chosen_layer(std::string_view path) const {
  std::size_t part = 0, begin = 0;
  for (std::size_t end = path.find('.'); end != std::string_view::npos; begin = end + 1, end = path.find('.', begin), ++part) {
    const std::string_view text = path.substr(begin, end - begin);
    if (text.empty() || text.size() > 9 || !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) continue;
    if (!names_layers(part, path.substr(0, begin ? begin - 1 : 0))) continue;
    return std::find(layers_.begin(), layers_.end(), static_cast<Index>(std::stol(std::string(text)))) != layers_.end();
  }
  return false;
}

LOWRANK_INLINE bool TargetMatcher::names_layers(std::size_t part, std::string_view before) const {
  if (layer_lists_.empty()) return part >= 2;
  return part >= 1 && std::any_of(layer_lists_.begin(), layer_lists_.end(), [&](const auto& list) { return list.matches(before); });
}

namespace detail {

/// Levenshtein's distance: insertions, deletions and replacements that make b of a.
LOWRANK_INLINE std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j)
      diagonal = std::exchange(row[j + 1], std::min({diagonal + (a[i] != b[j]), row[j] + 1, row[j + 1] + 1}));
  }
  return row.back();
}

LOWRANK_INLINE std::string_view last_part(std::string_view path) { return path.substr(path.rfind('.') + 1); }

LOWRANK_INLINE std::string near_names(std::string_view name, std::span<const ModuleShape> modules) {
  std::vector<std::pair<std::size_t, std::string_view>> found;
  for (const ModuleShape& module : modules) {
    const std::string_view part = last_part(module.path);
    const std::pair entry(edit_distance(last_part(name).substr(0, 100), part), part);
    if (std::find(found.begin(), found.end(), entry) == found.end()) found.push_back(entry);
  }
  std::sort(found.begin(), found.end());
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 8); ++i) text += (i ? ", " : "") + std::string(found[i].second);
  return text;
}

/// Throws ValueError for a part of the configuration that has no effect on any of the modules: a slip of the pen, most likely.
LOWRANK_INLINE void check_names(const LoraConfig& config, std::span<const ModuleShape> modules) {
  const auto check_list = [&](const ModuleNames& names, const char* field) {
    const auto* list = std::get_if<std::vector<std::string>>(&names);
    for (const std::string& name : list ? *list : std::vector<std::string>{})
      check<ValueError>(std::any_of(modules.begin(), modules.end(), [&](const auto& m) { return ends_with_name(m.path, name); }), field,
                        "no module is named \"", name.substr(0, 80), "\"; the model has ", near_names(name, modules));
  };
  check_list(config.target_modules, "target_modules");
  check_list(config.exclude_modules, "exclude_modules");
  check<ValueError>(config.layers_to_transform.empty() || std::holds_alternative<std::vector<std::string>>(config.target_modules),
                    "layers_to_transform", "layers are chosen among modules that are named by a list, not by an expression");
  for (const Index layer : config.layers_to_transform) {
    LoraConfig one = config;
    one.layers_to_transform = {layer};
    const TargetMatcher is_target(one);
    check<ValueError>(std::any_of(modules.begin(), modules.end(), [&](const auto& m) { return is_target(m.path); }), "layers_to_transform",
                      "no target is in layer ", layer, "; layers count from 0");
  }
}

/// Throws ValueError for a key that matches none of the paths.
template <class T>
void check_keys(const Patterns<T>& patterns, std::string_view field, const std::vector<std::string>& paths) {
  for (const auto& [key, value] : patterns) {
    const PathPattern pattern = PathPattern::ending(key, field);
    check<ValueError>(std::any_of(paths.begin(), paths.end(), [&](const auto& path) { return pattern.matches(path); }), field,
                      "no target matches \"", key.substr(0, 80), "\", to which it gives ", value);
  }
}

}  // namespace detail

LOWRANK_INLINE const Method& method_of(const LoraConfig& config) {
  const Method* method = find_method(config.peft_type, config.fields);
  check<ValueError>(method != nullptr, "method_of", "no method is registered for peft_type ", config.peft_type);
  return *method;
}

LOWRANK_INLINE void set_method(LoraConfig& config, std::string_view name) {
  std::string known;
  for (const Method& method : methods()) {
    known += concat(known.empty() ? "" : ", ", method.name);
    if (method.name != name) continue;
    for (const Method& other : methods()) config.fields.erase(std::string(other.flag));
    config.peft_type = method.peft_type;
    if (!method.flag.empty()) config.fields[std::string(method.flag)] = true;
    return;
  }
  fail<ValueError>("set_method", "there is no method ", name, "; give ", known);
}

LOWRANK_INLINE MethodFields method_fields(const LoraConfig& config, std::string_view path) {
  MethodFields fields;
  const PatternTable<Index> ranks(config.rank_pattern, "rank_pattern");
  const Index exception = ranks.value(path, Dynamic);
  const auto alpha = [&](double general) { return PatternTable<double>(config.alpha_pattern, "alpha_pattern").value(path, general); };
  for (const Field& field : method_of(config).fields()) fields[std::string(field.key)] = field.standard;
  for (const auto& [key, value] : config.fields) fields[key] = value;
  if (config.peft_type == "LORA") {
    fields["r"] = static_cast<double>(config.rank), fields["lora_alpha"] = config.alpha, fields["lora_dropout"] = config.dropout;
    fields["use_rslora"] = config.use_rslora, fields["lora_bias"] = config.lora_bias;
  }
  for (auto& [key, value] : fields) {
    double* const number = std::get_if<double>(&value);
    if (number && key == "r" && exception != Dynamic) *number = static_cast<double>(exception);
    if (number && (key == "alpha" || key == "lora_alpha")) *number = alpha(*number);
  }
  if (exception != Dynamic) fields["rank_pattern"] = static_cast<double>(exception);
  return fields;
}

LOWRANK_INLINE std::vector<std::string> select_targets(const LoraConfig& config, std::span<const ModuleShape> modules) {
  detail::check_names(config, modules);
  const TargetMatcher is_target(config);
  std::vector<std::string> paths;
  for (const ModuleShape& module : modules)
    if (is_target(module.path)) paths.push_back(module.path);
  check<ValueError>(!paths.empty(), "target_modules", "the selection matches none of the model's ", modules.size(), " modules; it has ",
                    detail::near_names("", modules));
  detail::check_keys(config.rank_pattern, "rank_pattern", paths);
  detail::check_keys(config.alpha_pattern, "alpha_pattern", paths);
  return paths;
}

LOWRANK_INLINE void check_fits(const Adapter& adapter, std::span<const ModuleShape> modules) {
  for (const auto& [path, layer] : adapter.layers) {
    const auto module = std::find_if(modules.begin(), modules.end(), [&wanted = path](const auto& m) { return m.path == wanted; });
    check<ShapeError>(module != modules.end(), "adapter", "it changes ", path,
                      ", which the model does not have; near names: ", detail::near_names(path, modules),
                      "; was it trained on another base?");
    if (!layer.find(layer.a_name()) || !layer.find(layer.b_name())) continue;  // another method's shapes: by update_of
    Index in = module->in, out = module->out, &tokens = layer.is_embedding ? in : out;
    if (const auto saved = detail::rows_saved(adapter, path))
      tokens = *saved;  // a table of another number of tokens comes with the adapter
    const Index wanted = layer.is_embedding ? layer.in() : layer.out();
    check<ShapeError>((!layer.is_embedding && detail::last_part(path) != "lm_head") || tokens == wanted, "adapter", path,
                      ": the adapter was trained with ", wanted, " tokens, the model has ", tokens,
                      ", and the adapter brings no table of its own");
    check<ShapeError>(in == layer.in() && out == layer.out(), "adapter", path, " is [", out, ", ", in,
                      "] in the model but the adapter was made for [", layer.out(), ", ", layer.in(), "]; was it trained on another base?");
  }
  if (std::holds_alternative<std::monostate>(adapter.config.target_modules) || detail::is_all_linear(adapter.config.target_modules)) return;
  const TargetMatcher is_target(adapter.config);
  for (const ModuleShape& module : modules)
    check<ShapeError>(!is_target(module.path) || adapter.layers.contains(module.path), "adapter", "its configuration names ", module.path,
                      " but it has no tensors for it; the file is incomplete or was trained on a smaller base");
}

}  // namespace lowrank::inline LOWRANK_ABI
