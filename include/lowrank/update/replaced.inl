#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/shape.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

inline constexpr std::string_view token_rows_name = ".token_adapter.trainable_tokens_delta";

LOWRANK_INLINE const AdaptedLinear& layer_used(std::span<const NamedLayer> layers, const UpdateSet& set, Index slot) {
  const AdaptedLinear* const copy = set.copy_of(slot);
  return copy ? *copy : *layers[static_cast<std::size_t>(slot)].layer;
}

/// The shape [out, channels, kernel…] of a layer's whole weight.
LOWRANK_INLINE std::vector<Index> weight_shape(const Weight<float>& w, const std::vector<Index>& kernel) {
  std::vector<Index> shape{w.rows(), w.cols()};
  for (const Index size : kernel) shape[1] /= size;
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  return shape;
}

/// A layer's weight as numbers of its own, with its bias, trained or not, under a name.
LOWRANK_INLINE AdaptedLinear dense_copy(const AdaptedLinear& own, std::string name, Weight<float> w, bool trainable) {
  Linear<float> copy(std::move(w), own.base.bias().value);
  copy.bias().name = name.substr(0, name.rfind('.')) + ".bias";
  copy.weight().name = std::move(name);
  copy.set_compute(own.base.compute());
  copy.set_trainable(trainable);
  copy.bias().trainable = trainable && !copy.bias().empty();
  return AdaptedLinear(AnyLinear(std::move(copy)));
}

LOWRANK_INLINE Parameter<float> norm_copy(const Parameter<float>& own, std::string name, bool trainable) {
  Parameter<float> copy;
  copy.name = std::move(name), copy.value = own.value;
  copy.is_vector = true, copy.trainable = trainable;
  return copy;
}

LOWRANK_INLINE void add_copies(const ModelLayers& layers, const std::vector<std::string>& names, UpdateSet& set) {
  for (const std::string& name : names) {
    bool found = false;
    for (std::size_t s = 0; s < layers.size(); ++s) {
      const AdaptedLinear& own = *layers[s].layer;
      if (!names_saved({&name, 1}, layers[s].path)) continue;
      found = true;
      Weight<float> w(own.out_features(), own.in_features());
      own.base.source().decode(0, w.rows(), 0, w.cols(), w.data(), w.cols());
      set.slots[s] = {};
      set.copies.emplace(static_cast<Index>(s), dense_copy(own, layers[s].path + ".weight", std::move(w), true));
    }
    for (const NamedNorm& norm : layers.norms()) {
      if (!names_saved({&name, 1}, norm.path)) continue;
      found = true;
      set.norms.emplace(norm.place, norm_copy(*norm.weight, norm.path + ".weight", true));
    }
    check<ValueError>(found, "modules_to_save", "no module's name ends with \"", name, "\"; the model has ",
                      near_names(name, module_shapes(layers)));
  }
}

/// The slot of the token table, or the number of slots.
LOWRANK_INLINE std::size_t table_slot(const ModelLayers& layers) {
  return static_cast<std::size_t>(std::find_if(layers.begin(), layers.end(), [](const NamedLayer& layer) { return layer.is_embedding; }) -
                                  layers.begin());
}

/// The slots of the tables whose tokens a configuration trains, with the tokens. Throws ValueError.
LOWRANK_INLINE std::vector<std::pair<std::size_t, std::vector<std::int32_t>>> token_slots(const LoraConfig& config,
                                                                                          const ModelLayers& layers) {
  std::vector<std::pair<std::size_t, std::vector<std::int32_t>>> slots;
  for (const auto& [name, tokens] : config.trained_tokens) {
    std::size_t slot = table_slot(layers);
    for (std::size_t s = 0; s < layers.size() && !name.empty(); ++s)
      if (layers[s].path.ends_with(name)) slot = s;
    const bool fits = slot < layers.size() && (layers[slot].is_embedding || last_part(layers[slot].path) == "lm_head") &&
                      layers[slot].path.ends_with(name);
    check<ValueError>(fits, "trainable_token_indices", '"', name.substr(0, 80), "\" is no table of tokens; give embed_tokens or lm_head");
    check<ValueError>(!names_saved(config.modules_to_save, layers[slot].path), "trainable_token_indices", layers[slot].path,
                      " is trained as a whole by modules_to_save; leave one of the two away");
    slots.emplace_back(slot, std::vector<std::int32_t>(tokens.begin(), tokens.end()));
  }
  return slots;
}

/// The rows of a table as they are, trained.
LOWRANK_INLINE TokenRows<float> token_rows(const WeightView& table, std::vector<std::int32_t> ids, const std::string& path) {
  TokenRows<float> own{std::move(ids), {concat(path, token_rows_name), Weight<float>()}};
  check_ids("trainable_token_indices", own.ids, table.rows());
  own.rows.value.resize(static_cast<Index>(own.ids.size()), table.cols());
  for (std::size_t i = 0; i < own.ids.size(); ++i)
    table.decode(own.ids[i], 1, 0, table.cols(), own.rows.value.row(static_cast<Index>(i)).data(), table.cols());
  return own;
}

LOWRANK_INLINE void tie_heads(const ModelLayers& layers, const LoraConfig& config, UpdateSet& set) {
  const std::size_t table = table_slot(layers);
  for (const auto& [slot, own] : set.rows)
    check<ValueError>(!set.slots[static_cast<std::size_t>(slot)], "trainable_token_indices", layers[static_cast<std::size_t>(slot)].path,
                      " has an update, too; leave it out of the targets, or its tokens");
  for (std::size_t s = 0; s < layers.size(); ++s) {
    if (s == table || table == layers.size() || layers[s].layer != layers[table].layer) continue;
    const auto of_head = set.rows.find(static_cast<Index>(s)), of_table = set.rows.find(static_cast<Index>(table));
    const bool has_rows = of_table != set.rows.end(),
               rows_differ = has_rows && of_head != set.rows.end() && of_head->second.ids != of_table->second.ids;
    const bool is_wanted = config.ensure_weight_tying && (set.slots[table] || set.copies.contains(static_cast<Index>(table)));
    if (!is_wanted && (!has_rows || (rows_differ && !config.ensure_weight_tying))) continue;
    check<ValueError>(!rows_differ, "ensure_weight_tying", layers[s].path, " is the token table, but other tokens of it are to be trained");
    check<ValueError>(!is_wanted || !set.slots[table] || set.slots[table].get_if<LoraWeights<float>>(), "ensure_weight_tying",
                      layers[table].path, ": a head cannot follow an update of the token table by ", method_of(config).name,
                      "; use plain LoRA");
    set.copies.erase(static_cast<Index>(s));
    set.rows.erase(static_cast<Index>(s));
    if (is_wanted) set.slots[s] = {};
    set.tied.emplace(static_cast<Index>(s), static_cast<Index>(table));
  }
}

/// A whole tensor of an adapter: the path of its module, and what it is there.
struct SavedPart {
  std::string path;
  std::string_view part;
};
LOWRANK_INLINE SavedPart saved_part(const std::string& name) {
  for (const std::string_view end : {std::string_view(".token_adapter.base_layer.weight"), std::string_view(".modules_to_save.weight"),
                                     std::string_view(".original_module.weight"), std::string_view(".base_layer.weight"), token_rows_name,
                                     std::string_view(".weight"), std::string_view(".bias")})
    if (name.ends_with(end)) return {name.substr(0, name.size() - end.size()), end};
  return {name, {}};
}

/// A full copy of a layer. A table, and a head, may have another number of rows than the model's.
LOWRANK_INLINE void add_loaded_copy(const ModelLayers& layers, std::size_t slot, const Adapter& adapter, const StoredTensor& tensor,
                                    UpdateSet& set) {
  const NamedLayer& named = layers[slot];
  const AdaptedLinear& own = *named.layer;
  Weight<float> w = to_weight(tensor);
  const bool is_table = named.is_embedding || last_part(named.path) == "lm_head";
  check<ShapeError>((is_table || w.rows() == own.out_features()) && w.cols() == own.in_features(), "bind", tensor.name, " is ",
                    shape_text(tensor.shape), " but the model has [", own.out_features(), ", ", own.in_features(),
                    "]; was it trained on another base?");
  const bool is_base = tensor.name.ends_with("base_layer.weight");  // PEFT saves a table that it adapts, or that grew, beside the update
  const bool trains = !is_base && names_saved(adapter.config.modules_to_save, named.path);
  set.copies.insert_or_assign(static_cast<Index>(slot), dense_copy(own, tensor.name, std::move(w), trains));
  if (!is_base || !named.is_embedding) return;
  for (std::size_t s = 0; s < layers.size(); ++s)  // a head that is the same table
    if (s != slot && layers[s].layer == &own) set.copies.emplace(static_cast<Index>(s), set.copies.at(static_cast<Index>(slot)));
}

/// Puts a whole tensor of an adapter into the set. Throws ValueError for one that has no place.
LOWRANK_INLINE void add_saved_tensor(const ModelLayers& layers, const Adapter& adapter, const StoredTensor& tensor, UpdateSet& set) {
  const auto [path, part] = saved_part(tensor.name);
  const bool is_other_name = part == ".modules_to_save.weight" || part == ".original_module.weight";  // beside .weight, which counts
  if (is_other_name && rows_saved(adapter, path)) return;
  const auto place = std::find_if(layers.begin(), layers.end(), [&wanted = path](const NamedLayer& layer) { return layer.path == wanted; });
  const auto norm =
      std::find_if(layers.norms().begin(), layers.norms().end(), [&wanted = path](const NamedNorm& n) { return n.path == wanted; });
  const auto slot = static_cast<std::size_t>(place - layers.begin());
  if (norm != layers.norms().end() && part == ".weight") {
    check<ShapeError>(tensor.shape == std::vector{norm->weight->size()}, "bind", tensor.name, " is ", shape_text(tensor.shape),
                      " but the model has [", norm->weight->size(), "]; was it trained on another base?");
    Parameter<float> copy = norm_copy(*norm->weight, tensor.name, names_saved(adapter.config.modules_to_save, path));
    copy.value = to_weight(tensor).transpose();
    set.norms.insert_or_assign(norm->place, std::move(copy));
    return;
  }
  const bool is_bias = part == ".bias" && place != layers.end() && names_saved(adapter.config.modules_to_save, path) &&
                       place->layer->base.bias().size() == tensor.size();
  check<ValueError>(place != layers.end() && (is_bias || part.ends_with(".weight") || part == token_rows_name), "bind",
                    "the adapter brings a full copy of ", tensor.name,
                    "; copies of linear layers, norms, lm_head and embed_tokens are supported");
  if (part != ".bias" && part != token_rows_name) add_loaded_copy(layers, slot, adapter, tensor, set);
}

/// The biases of copies, and the rows of tokens, once the copies are there.
LOWRANK_INLINE void add_saved_rows(const ModelLayers& layers, const Adapter& adapter, UpdateSet& set) {
  const auto saved = [&](const std::string& name) {
    return std::find_if(adapter.saved.begin(), adapter.saved.end(), [&](const StoredTensor& tensor) { return tensor.name == name; });
  };
  for (auto& [slot, copy] : set.copies)
    if (const auto bias = saved(layers[static_cast<std::size_t>(slot)].path + ".bias"); bias != adapter.saved.end())
      copy.base.bias().value = to_weight(*bias).transpose();
  for (auto& [slot, ids] : token_slots(adapter.config, layers)) {
    const std::string& path = layers[slot].path;
    const auto tensor = saved(concat(path, token_rows_name));
    if (tensor == adapter.saved.end()) continue;  // a head that is the token table
    TokenRows<float> own = token_rows(layer_used(layers, set, static_cast<Index>(slot)).base.source(), std::move(ids), path);
    check<ShapeError>(tensor->shape == std::vector{own.rows.rows(), own.rows.cols()}, "bind", tensor->name, " is ",
                      shape_text(tensor->shape), " but must be [", own.rows.rows(), ", ", own.rows.cols(),
                      "], a row of the table for each token");
    own.rows.value = to_weight(*tensor);
    set.rows.insert_or_assign(static_cast<Index>(slot), std::move(own));
  }
}

LOWRANK_INLINE void add_fresh_copies(const ModelLayers& layers, const LoraConfig& config, UpdateSet& set) {
  add_copies(layers, config.modules_to_save, set);
  for (auto& [slot, ids] : token_slots(config, layers))
    set.rows.emplace(static_cast<Index>(slot), token_rows(layers[slot].layer->base.source(), std::move(ids), layers[slot].path));
}

LOWRANK_INLINE void add_saved(const ModelLayers& layers, const Adapter& adapter, UpdateSet& set) {
  for (const StoredTensor& tensor : adapter.saved) add_saved_tensor(layers, adapter, tensor, set);
  add_saved_rows(layers, adapter, set);
}

LOWRANK_INLINE void check_tokens(const ModelLayers& layers, const UpdateSet& set) {
  const std::size_t table = table_slot(layers);
  for (std::size_t s = 0; s < layers.size() && table < layers.size(); ++s) {
    const bool changes = set.copy_of(static_cast<Index>(table)) || set.copy_of(static_cast<Index>(s));
    if (last_part(layers[s].path) != "lm_head" || !changes) continue;
    const Index model = layers[table].layer->out_features();
    const Index of_table = layer_used(layers, set, static_cast<Index>(table)).out_features(),
                of_head = layer_used(layers, set, static_cast<Index>(s)).out_features();
    check<ShapeError>(of_table == of_head, "bind", "the adapter was trained with ", of_table == model ? of_head : of_table,
                      " tokens, the model has ", model, ", and the adapter brings ", layers[of_table == model ? s : table].path,
                      " but not ", layers[of_table == model ? table : s].path,
                      ": save it in PEFT with save_embedding_layers=True, or with both in modules_to_save");
  }
}

LOWRANK_INLINE void append_saved(const UpdateSet& set, const ModelLayers& layers, Adapter& adapter) {
  const auto append = [&](const Parameter<float>& parameter, std::string name, std::vector<Index> shape) {
    adapter.saved.push_back(from_weight(std::move(name), parameter.value));
    adapter.saved.back().shape = std::move(shape);
  };
  const auto path = [&](Index slot) -> const std::string& { return layers[static_cast<std::size_t>(slot)].path; };
  for (const auto& [slot, copy] : set.copies) {
    const auto& dense = *copy.base.get_if<Linear<float>>();
    const NamedLayer& named = layers[static_cast<std::size_t>(slot)];
    if (!dense.weight().name.starts_with(named.path)) continue;  // of a table that is saved itself
    append(dense.weight(), dense.weight().name, weight_shape(dense.weight().value, named.kernel));
    if (dense.bias().trainable) append(dense.bias(), named.path + ".bias", {dense.bias().size()});
  }
  for (const auto& [place, norm] : set.norms) append(norm, norm.name, {norm.size()});
  for (const auto& [slot, own] : set.rows) append(own.rows, own.rows.name, {own.rows.rows(), own.rows.cols()});
  for (const auto& [head, table] : set.tied) {
    if (const auto copy = set.copies.find(table); copy != set.copies.end()) {
      const auto& w = copy->second.base.get_if<Linear<float>>()->weight();
      append(w, path(head) + w.name.substr(path(table).size()), {w.rows(), w.cols()});
    }
    const AnyUpdate* const update = set.at(table);
    if (update == nullptr || update->lora() == nullptr) continue;
    const LoraWeights<float>& lora = *update->lora();
    adapter.layers[path(head)] =
        lora_tensors(from_weight("", lora.b.value.transpose()), from_weight("", lora.a.value.transpose()), static_cast<double>(lora.scale));
  }
}

}  // namespace lowrank::inline LOWRANK_ABI::detail
