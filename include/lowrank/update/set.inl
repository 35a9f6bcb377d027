#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/embedding.hpp>
#include <lowrank/update/replaced.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline constexpr std::string_view embedding_a = "lora_embedding_A", embedding_b = "lora_embedding_B",
                                  table_magnitude = "lora_magnitude_vector";

LOWRANK_INLINE UpdateSite site_of(std::span<const NamedLayer> layers, const UpdateSet& set, Index slot, std::uint64_t seed) {
  return {layers[static_cast<std::size_t>(slot)].path, layer_view(layer_used(layers, set, slot).base), seed,
          static_cast<std::uint64_t>(slot)};
}

/// Each parameter by its whole name in a file: the module's path, and what the method calls it.
LOWRANK_INLINE AnyUpdate with_path(AnyUpdate update, const std::string& path) {
  update.visit_parameters([&](Parameter<float>& parameter) { parameter.name = name_in_file(path, parameter.name); });
  return update;
}

/// A fresh update of a token table: A = 0, B drawn from N(0, 1), as in PEFT; of DoRA with the lengths of the table's columns.
LOWRANK_INLINE AnyUpdate new_table_update(const UpdateSite& site, const Method& method, const MethodFields& fields) {
  check<ValueError>(method.peft_type == "LORA" && !field(fields, "lora_bias", false), "new_lora", site.path,
                    " takes plain LoRA or DoRA; leave it out of the targets of ", method.name,
                    field(fields, "lora_bias", false) ? " with lora_bias" : "");
  const Index rank = count_field(fields, "r", 8);
  Weight<float> b(site.layer.in, rank);
  fill_normal(b, 1.0, Random(site.seed, site.stream, Role::table_lora));
  DoraWeights<float> update{
      {.a = {std::string(embedding_a), Weight<float>::Zero(rank, site.layer.out)},
       .b = {std::string(embedding_b), std::move(b)},
       .scale = static_cast<float>(lora_scale(rank, field<double>(fields, "lora_alpha", 8), field(fields, "use_rslora", false)))}};
  if (method.name != "dora") return static_cast<LoraWeights<float>&>(update);
  update.magnitude.value = dora_table_norms(site.layer.weight, update);
  update.magnitude.name = table_magnitude, update.magnitude.is_vector = true;
  return update;
}

/// Tensors that a file holds for all modules, or what the method makes of the sites.
LOWRANK_INLINE SharedTensors shared_of(const Adapter& adapter, const Method& method, std::span<const UpdateSite> sites) {
  SharedTensors shared;
  for (const StoredTensor& tensor : adapter.shared) shared[tensor.name] = std::make_shared<const Weight<float>>(to_weight(tensor));
  if (method.share && shared.empty() && !sites.empty()) method.share(sites, method_fields(adapter.config, sites.front().path), shared);
  return shared;
}

/// A parameter's shape in the files of a layer with that kernel.
LOWRANK_INLINE std::vector<Index> stored_shape(const Parameter<float>& parameter, const std::vector<Index>& kernel) {
  if (parameter.is_vector) return shape_in_file(parameter.name, {parameter.size()}, kernel);
  if (parameter.planes > 0) return {parameter.planes, parameter.rows() / parameter.planes, parameter.cols()};
  return shape_in_file(parameter.name, {parameter.rows(), parameter.cols()}, kernel);
}

/// Throws ValueError for a kernel that the layer has not, and for methods whose files would say something else of a convolution.
LOWRANK_INLINE void check_kernel(const NamedLayer& named, const Method& method) {
  if (named.kernel.empty()) return;
  Index size = 1;
  for (const Index one : named.kernel) size *= one;
  check<ValueError>(size > 0 && named.layer->in_features() % size == 0, "bind", named.path, " has the kernel ", shape_text(named.kernel),
                    " but in = ", named.layer->in_features(), ", which must be channels times the kernel");
  check<ValueError>(method.peft_type == "LORA", "bind", named.path, " is a convolution, which LoRA and DoRA can adapt, not ", method.name);
}

/// Throws ValueError where the adapter makes up for rounding to a format that the layer is not in.
LOWRANK_INLINE void check_base_format(const LoraConfig& config, const NamedLayer& named) {
  if (config.needs_base.empty()) return;
  const WeightView w = named.layer->base.source();
  const bool fits = w.kind() == WeightView::Kind::blocks && w.format().starts_with(config.needs_base) && w.blocks().group == 64;
  check<ValueError>(fits, "bind", "the adapter makes up for rounding to ", config.needs_base,
                    " in blocks of 64 (LoftQ) and is right over such a base only, but ", named.path, " is ", describe(w), "; pass --base ",
                    config.needs_base, " where the command has it, or give a model that `lowrank quantize --format ", config.needs_base,
                    "` wrote");
}

/// Puts a module's tensors in the place of an update's numbers: each parameter has its tensor, and each tensor its parameter.
LOWRANK_INLINE void load_parameters(AnyUpdate& update, const ModuleTensors& module, const NamedLayer& named) {
  const std::string& path = named.path;
  std::size_t count = 0;
  update.visit_parameters([&](Parameter<float>& parameter) {
    const StoredTensor* const tensor = module.find(parameter.name);
    check<ValueError>(tensor != nullptr, "bind", path, " has no tensor ", parameter.name, "; is the adapter whole?");
    const std::vector<Index> shape = stored_shape(parameter, named.kernel);
    check<ShapeError>(tensor->shape == shape, "bind", path, '.', parameter.name, " is ", shape_text(tensor->shape),
                      " but the module takes ", shape_text(shape));
    const std::vector<float> values = to_floats(*tensor);
    std::copy(values.begin(), values.end(), parameter.value.data());
    ++count;
  });
  check<ValueError>(count == module.tensors.size(), "bind", path, " has ", module.tensors.size(), " tensors but its method takes ", count,
                    " of them");
}

LOWRANK_INLINE AnyUpdate loaded_update(const Adapter& adapter, const Method& method, const UpdateSite& site, const NamedLayer& named,
                                       const ModuleTensors& module, const SharedTensors& shared) {
  MethodFields fields = method_fields(adapter.config, site.path);
  const bool has_factors = module.find(module.a_name()) && module.find(module.b_name());
  if (has_factors) fields["r"] = static_cast<double>(module.rank()), fields["lora_bias"] = module.bias() != nullptr;
  AnyUpdate update = method.make(site, fields, shared);
  load_parameters(update, module, named);
  if (LoraWeights<float>* const lora = update.lora()) lora->scale = static_cast<float>(module.scale);
  return update;
}

LOWRANK_INLINE AnyUpdate loaded_table_update(const ModuleTensors& module, const std::string& path) {
  const StoredTensor* const m = module.find(table_magnitude);
  check<ValueError>(module.tensors.size() == (m ? 3 : 2), "bind", path,
                    " has a tensor beside A, B and the magnitude, which an embedding does not apply");
  LoraWeights<float> lora{.a = {std::string(embedding_a), to_weight(module.a())},
                          .b = {std::string(embedding_b), to_weight(module.b())},
                          .scale = static_cast<float>(module.scale)};
  if (m == nullptr) return lora;
  DoraWeights<float> dora{std::move(lora)};
  check<ShapeError>(m->size() == dora.b.rows(), "bind", m->name, " is ", shape_text(m->shape), " but the table has ", dora.b.rows(),
                    " columns");
  dora.magnitude.name = table_magnitude, dora.magnitude.is_vector = true;
  dora.magnitude.value = to_weight(*m).transpose();
  return dora;
}

/// What an update is called in an error.
LOWRANK_INLINE std::string name_of(AnyUpdate& update) {
  std::string name;
  update.visit_parameters([&](Parameter<float>& parameter) { name = name.empty() ? parameter.name : name; });
  return name;
}

/// Σ sᵢ Bᵢ Aᵢ of the sets that have the update: the factors side by side.
LOWRANK_INLINE AnyUpdate sum_of(const std::vector<const AnyUpdate*>& parts) {
  if (parts.empty()) return {};
  if (parts.size() == 1) return *parts.front();
  Index rank = 0, at = 0;
  std::vector<const LoraWeights<float>*> all;
  for (const AnyUpdate* part : parts) {
    all.push_back(part->get_if<LoraWeights<float>>());
    check<ValueError>(all.back() != nullptr, "adapter_sum", name_of(const_cast<AnyUpdate&>(*part)),
                      ": updates of this method do not add up; convert them to LoRA if they are sums, merge one of them, or use it alone");
    rank += all.back()->rank();
  }
  const LoraWeights<float>& first = *all.front();
  Weight<float> a(rank, first.a.cols()), b(first.b.rows(), rank), bias;
  for (const auto* part : all) {
    a.middleRows(at, part->rank()) = part->a.value;
    b.middleCols(at, part->rank()) = part->scale * part->b.value;
    at += part->rank();
    if (part->bias.empty()) continue;
    if (bias.size() == 0) bias.setZero(first.b.rows(), 1);
    bias += part->scale * part->bias.value;
  }
  LoraWeights<float> total{.a = {first.a.name, std::move(a)}, .b = {first.b.name, std::move(b)}, .scale = 1};
  if (bias.size() > 0) total.bias = {first.a.name.substr(0, first.a.name.rfind(".lora_A")) + ".lora_B.bias", std::move(bias)};
  return total;
}

/// The tensors of an update by the names that its method gives them.
LOWRANK_INLINE ModuleTensors tensors_of(AnyUpdate update, const NamedLayer& layer) {
  ModuleTensors made{{}, 1, layer.is_embedding};
  if (const auto* lora = update.lora()) made.scale = static_cast<double>(lora->scale);
  update.visit_parameters([&](const Parameter<float>& parameter) {
    StoredTensor tensor = from_weight(parameter.name, parameter.value);
    tensor.shape = stored_shape(parameter, layer.kernel);
    const bool has_dot = parameter.name[layer.path.size()] == '.';
    made.tensors.emplace(parameter.name.substr(layer.path.size() + (has_dot ? 1 : 0)), std::move(tensor));
  });
  return made;
}

/// Throws ValueError for choices of modules that the method's configuration has no key for: PEFT would pass over them.
LOWRANK_INLINE void check_choices(const LoraConfig& config, const Method& method) {
  const std::vector<Field> fields = method.fields();
  const auto check_key = [&](std::string_view key, bool is_used) {
    const bool is_known = std::any_of(fields.begin(), fields.end(), [&](const Field& field) { return field.key == key; });
    check<ValueError>(!is_used || is_known, "new_lora", method.name, " has no ", key, "; leave it away");
  };
  check_key("exclude_modules", !std::holds_alternative<std::monostate>(config.exclude_modules));
  check_key("layers_to_transform", !config.layers_to_transform.empty());
  check_key("rank_pattern", !config.rank_pattern.empty());
  check_key("alpha_pattern", !config.alpha_pattern.empty());
}

}  // namespace detail

LOWRANK_INLINE std::vector<Index> target_slots(const ModelLayers& layers, const LoraConfig& given) {
  LoraConfig config = given;
  if (detail::is_all_linear(config.target_modules)) {  // PEFT, too, makes names of it, so that chosen layers count
    std::vector<std::string> names;
    for (const NamedLayer& layer : layers) {
      const std::string name(detail::last_part(layer.path));
      const bool is_known = std::find(names.begin(), names.end(), name) != names.end();
      if (!layer.is_embedding && layer.kernel.empty() && name != "lm_head" && !is_known) names.push_back(name);
    }
    config.target_modules = names;
  }
  const std::vector<std::string> paths = select_targets(config, module_shapes(layers));
  std::vector<Index> slots;
  for (std::size_t s = 0; s < layers.size(); ++s)
    if (std::find(paths.begin(), paths.end(), layers[s].path) != paths.end()) slots.push_back(static_cast<Index>(s));
  return slots;
}

LOWRANK_INLINE UpdateSet new_updates(const ModelLayers& layers, const LoraConfig& config, LoraInit init, std::uint64_t seed) {
  UpdateSet set{std::vector<AnyUpdate>(layers.size())};
  const Method& method = method_of(config);
  detail::check_choices(config, method);
  const std::vector<Index> targets = target_slots(layers, config);
  std::vector<UpdateSite> sites;
  sites.reserve(targets.size());
  for (const Index slot : targets) {
    detail::check_kernel(layers[static_cast<std::size_t>(slot)], method);
    sites.push_back(detail::site_of(layers, set, slot, seed));
  }
  if (method.share && !sites.empty()) method.share(sites, method_fields(config, sites.front().path), set.shared);
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const auto slot = static_cast<std::size_t>(targets[i]);
    MethodFields fields = method_fields(config, sites[i].path);
    if (init == LoraInit::gaussian) fields["init_lora_weights"] = std::string("gaussian");
    AnyUpdate update =
        layers[slot].is_embedding ? detail::new_table_update(sites[i], method, fields) : method.make(sites[i], fields, set.shared);
    set.slots[slot] = detail::with_path(std::move(update), sites[i].path);
  }
  detail::add_fresh_copies(layers, config, set);
  detail::tie_heads(layers, config, set);
  return set;
}

LOWRANK_INLINE UpdateSet apply(const Adapter& adapter, const ModelLayers& layers) {
  check_fits(adapter, module_shapes(layers));
  UpdateSet set{std::vector<AnyUpdate>(layers.size())};
  const Method& method = method_of(adapter.config);
  detail::add_saved(layers, adapter, set);
  std::vector<UpdateSite> sites;
  for (std::size_t s = 0; s < layers.size(); ++s)
    if (const auto module = adapter.layers.find(layers[s].path); module != adapter.layers.end()) {
      detail::check_kernel(layers[s], method);
      detail::check_base_format(adapter.config, layers[s]);
      sites.push_back(detail::site_of(layers, set, static_cast<Index>(s), 0));
      for (const auto& [name, tensor] : module->second.tensors) sites.back().shapes.emplace(name, tensor.shape);
    }
  set.shared = detail::shared_of(adapter, method, sites);
  for (const UpdateSite& site : sites) {
    const auto slot = static_cast<std::size_t>(site.stream);
    const ModuleTensors& module = adapter.layers.at(site.path);
    AnyUpdate update = layers[slot].is_embedding ? detail::loaded_table_update(module, site.path)
                                                 : detail::loaded_update(adapter, method, site, layers[slot], module, set.shared);
    set.slots[slot] = detail::with_path(std::move(update), site.path);
  }
  detail::tie_heads(layers, adapter.config, set);
  detail::check_tokens(layers, set);
  return set;
}

LOWRANK_INLINE Adapter adapter_of(const UpdateSet& set, const ModelLayers& layers, LoraConfig config) {
  Adapter adapter;
  std::vector<std::string> names;
  for (std::size_t s = 0; s < layers.size() && s < set.slots.size(); ++s) {
    if (!set.slots[s]) continue;
    adapter.layers[layers[s].path] = detail::tensors_of(set.slots[s], layers[s]);
    const std::string name(detail::last_part(layers[s].path));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  detail::append_saved(set, layers, adapter);
  if (field(config.fields, method_of(config).saves_shared, true))
    for (const auto& [name, tensor] : set.shared) adapter.shared.push_back(from_weight(name, *tensor));
  if (detail::is_all_linear(config.target_modules)) config.target_modules = names;  // as PEFT saves it
  adapter.config = std::move(config);
  return adapter;
}

LOWRANK_INLINE void scale(UpdateSet& set, double weight) {
  if (weight == 1) return;
  check<ValueError>(!set.replaces(), "adapter",
                    "an adapter that replaces weights (modules_to_save, trained tokens) can be used at scale 1 only");
  for (AnyUpdate& update : set.slots) {
    if (!update) continue;
    auto* const lora = update.get_if<LoraWeights<float>>();
    check<ValueError>(
        lora != nullptr, "adapter", detail::name_of(update),
        ": an update of this method has no scale that could change; use it at scale 1, convert it to LoRA if it is a sum, or merge it");
    lora->scale *= static_cast<float>(weight);
  }
}

LOWRANK_INLINE UpdateSet sum(std::span<const UpdateSet> sets) {
  UpdateSet total{std::vector<AnyUpdate>(sets.front().slots.size())};
  for (std::size_t s = 0; s < total.slots.size(); ++s) {
    std::vector<const AnyUpdate*> parts;
    for (const UpdateSet& set : sets)
      if (set.slots[s]) parts.push_back(&set.slots[s]);
    total.slots[s] = detail::sum_of(parts);
  }
  for (const UpdateSet& set : sets)
    for (const auto& [slot, copy] : set.copies)
      check<ValueError>(total.copies.emplace(slot, copy).second, "adapter_sum",
                        "two adapters bring a full copy of the same layer; use one of them");
  for (const UpdateSet& set : sets) {
    for (const auto& [place, norm] : set.norms)
      check<ValueError>(total.norms.emplace(place, norm).second, "adapter_sum",
                        "two adapters bring a copy of the same norm; use one of them");
    for (const auto& [slot, own] : set.rows)
      check<ValueError>(total.rows.emplace(slot, own).second, "adapter_sum", "two adapters bring rows of the same table; use one of them");
    check<ValueError>(set.tied.empty() || sets.size() == 1, "adapter_sum",
                      "an adapter whose head follows its token table adds to no other; merge it");
    total.tied.insert(set.tied.begin(), set.tied.end());
  }
  return total;
}

LOWRANK_INLINE FittedAdapter to_lora(const UpdateSet& set, const ModelLayers& layers, const RankChoice& choice) {
  check<ValueError>(!set.replaces(), "to_lora", "an adapter that replaces weights (modules_to_save, trained tokens) is no LoRA alone");
  std::vector<std::pair<std::string, Plan<float>>> plans;
  UpdateSet updates = set;  // the plans refer to it
  for (std::size_t s = 0; s < updates.slots.size(); ++s) {
    if (!updates.slots[s]) continue;
    const auto& [path, layer, is_embedding, kernel] = layers[s];
    check<ValueError>(!is_embedding, "to_lora", path, ": an update of a token table stays what it is");
    plans.emplace_back(path, updates.slots[s].plan({.layer = detail::layer_view(layer->base)}));
    check<ValueError>(plans.back().second.bias.empty(), "to_lora", path, ": its update has a bias, which two factors cannot hold");
  }
  check<ValueError>(!plans.empty(), "to_lora", "the set has no update");
  std::vector<FittedUpdate> fitted(plans.size());
  parallel_for(static_cast<Index>(plans.size()), [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    fitted[at] = extract_update(plans[at].second, choice);
  });
  std::map<std::string, FittedUpdate> by_path;
  for (std::size_t i = 0; i < plans.size(); ++i) by_path.emplace(plans[i].first, std::move(fitted[i]));
  FittedAdapter result = to_adapter(by_path);
  for (const NamedLayer& named : layers)
    if (const auto found = result.adapter.layers.find(named.path); found != result.adapter.layers.end())
      found->second = with_kernel(std::move(found->second), named.kernel);
  return result;
}

LOWRANK_INLINE void prepare(UpdateSet& set, const ModelLayers& layers) {
  for (std::size_t s = 0; s < set.slots.size(); ++s) {
    if (!set.slots[s]) continue;
    const AdaptedLinear& layer = detail::layer_used(layers, set, static_cast<Index>(s));
    if (!layers[s].is_embedding) set.slots[s].prepare(detail::layer_view(layer.base));
    auto* const dora = layers[s].is_embedding ? set.slots[s].get_if<DoraWeights<float>>() : nullptr;
    if (dora) dora->gain = dora_gain(dora->magnitude.value, dora_table_norms(layer.base.source(), *dora));
  }
}

LOWRANK_INLINE bool has_penalties(const UpdateSet& set) {
  return std::any_of(set.slots.begin(), set.slots.end(), [](const AnyUpdate& update) { return update.has_penalty(); });
}

LOWRANK_INLINE double add_penalties(UpdateSet& set) {
  const auto count = std::count_if(set.slots.begin(), set.slots.end(), [](const AnyUpdate& update) { return update.has_penalty(); });
  double sum = 0;
  for (AnyUpdate& update : set.slots)
    if (update.has_penalty()) sum += static_cast<double>(update.add_penalty(1.0f / static_cast<float>(count)));
  return sum;
}

LOWRANK_INLINE Index parameter_count(const UpdateSet& set) {
  Index count = 0;
  const_cast<UpdateSet&>(set).visit_parameters([&](const Parameter<float>& parameter) { count += parameter.size(); });
  return count;
}

}  // namespace lowrank::inline LOWRANK_ABI
