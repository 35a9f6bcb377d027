#include <transformer/adapters.hpp>

#include <algorithm>
#include <cmath>
#include <sstream>

#include <lowrank/update/init.hpp>

namespace transformer {

std::vector<lowrank::ModuleShape> modules(const Llama& model) {
  std::vector<lowrank::ModuleShape> all;
  for (Index s = 0; s < model.slots(); ++s)
    all.push_back({slot_path(model.config, s), model.layer(s).in_features(), model.layer(s).out_features()});
  return all;
}

lowrank::ModuleNames parse_targets(const std::string& text) {
  if (text.find_first_of("*+?()[]{}|^$\\") != std::string::npos || text == "all-linear") return text;
  std::vector<std::string> names;
  std::istringstream parts(text);
  for (std::string name; std::getline(parts, name, ',');) {
    lowrank::check<lowrank::ValueError>(!name.empty(), "targets", '"', text, "\" has an empty name; write q_proj,v_proj");
    names.push_back(name);
  }
  lowrank::check<lowrank::ValueError>(!names.empty(), "targets", "no module is named; write all-linear, or names such as q_proj,v_proj");
  return names;
}

bool targets_table(const LoraConfig& config) {
  return !lowrank::detail::is_all_linear(config.target_modules) && lowrank::TargetMatcher(config)("model.embed_tokens");
}

std::vector<Index> target_slots(const Llama& model, const LoraConfig& given) {
  LoraConfig config = given;
  if (lowrank::detail::is_all_linear(config.target_modules)) {  // PEFT, too, makes names of it, so that chosen layers count
    std::vector<std::string> names;
    for (Index p = 0; p < projections; ++p) names.emplace_back(lowrank::detail::last_part(module_name(static_cast<Projection>(p))));
    config.target_modules = names;
  }
  std::vector<lowrank::ModuleShape> all = modules(model);
  all.push_back({"model.embed_tokens", model.config.vocabulary, model.config.hidden});
  const std::vector<std::string> paths = lowrank::select_targets(config, all);
  std::vector<Index> slots;
  for (Index s = 0; s < model.slots(); ++s)
    if (std::find(paths.begin(), paths.end(), all[static_cast<std::size_t>(s)].path) != paths.end()) slots.push_back(s);
  return slots;
}

namespace {

/// alpha / r or alpha / √r as the number that it is in training. Throws ValueError where that is 0 or infinite.
float scale_of(const LoraConfig& config, const std::string& path, Index rank, double alpha) {
  const auto scale = static_cast<float>(lowrank::lora_scale(rank, alpha, config.use_rslora));
  lowrank::check<lowrank::ValueError>(std::isfinite(scale) && scale != 0, "new_lora", "alpha ", alpha, " gives the update of ", path,
                                      " the scale ", scale, "; it must be finite and not 0");
  return scale;
}

bool is_dora(const LoraConfig& config) { return lowrank::method_of(config).name == "dora"; }

/// A fresh update of a slot: A drawn, B and its bias zero, DoRA's lengths those of the weight's rows.
LoraWeights<float> new_weights(const Llama& model, Index s, const LoraConfig& config, Index rank, double alpha, lowrank::LoraInit init,
                               std::uint64_t seed) {
  const std::string path = slot_path(model.config, s);
  const AdaptedLinear& layer = model.layer(s);
  const Index in = layer.in_features(), out = layer.out_features();
  lowrank::check<lowrank::ValueError>(rank > 0 && rank <= std::min(in, out), "new_lora", "rank ", rank, " for ", path, " [", out, ", ", in,
                                      "]; give a rank from 1 to ", std::min(in, out));
  lowrank::check<lowrank::ValueError>(!(is_dora(config) && config.lora_bias), "new_lora", "DoRA with lora_bias is not defined; choose one");
  lowrank::Weight<float> a(rank, in);
  init_lora_a(a, init, lowrank::Random(seed, static_cast<std::uint64_t>(s)));
  LoraWeights<float> weights{
      lowrank::LoraWeights<float>{.a = detail::trainable(path + ".lora_A.weight", std::move(a)),
                                  .b = detail::trainable(path + ".lora_B.weight", lowrank::Weight<float>::Zero(out, rank)),
                                  .scale = scale_of(config, path, rank, alpha),
                                  .dropout = static_cast<float>(config.dropout),
                                  .dropout_seed = seed ^ (static_cast<std::uint64_t>(s) * 0x9E3779B97F4A7C15u)}};
  if (config.lora_bias) weights.bias = detail::trainable(path + ".lora_B.bias", lowrank::Weight<float>::Zero(out, 1));
  if (is_dora(config)) {
    weights.begin(lowrank::detail::layer_view(layer.base));
    weights.magnitude.name = path + ".lora_magnitude_vector";
  }
  return weights;
}

/// A fresh update of the token table: A = 0, B drawn from N(0, 1), as in PEFT.
LoraWeights<float> new_table_update(const Llama& model, Index rank, float scale, std::uint64_t seed) {
  const std::string path = "model.embed_tokens";
  lowrank::Weight<float> b(model.config.hidden, rank);
  fill_normal(b, 1.0, lowrank::Random(seed, static_cast<std::uint64_t>(model.embedding_slot())));
  return {lowrank::LoraWeights<float>{
      .a = detail::trainable(path + ".lora_embedding_A", lowrank::Weight<float>::Zero(rank, model.config.vocabulary)),
      .b = detail::trainable(path + ".lora_embedding_B", std::move(b)),
      .scale = scale}};
}

/// Full, trainable copies of the layers that modules_to_save names.
void add_copies(const Llama& model, const std::vector<std::string>& names, LoraSet& set) {
  std::vector<lowrank::ModuleShape> all = modules(model);
  all.push_back({"model.embed_tokens", model.config.vocabulary, model.config.hidden});
  for (const std::string& name : names) {
    bool found = false;
    for (Index s = 0; s <= model.embedding_slot(); ++s) {
      const std::string& path = all[static_cast<std::size_t>(s)].path;
      if (!lowrank::detail::ends_with_name(path, name)) continue;
      found = true;
      const AdaptedLinear& own = s == model.embedding_slot() ? model.embedding : model.layer(s);
      lowrank::Linear<float> copy(dense_weight(own), own.base.bias().value);
      copy.weight().name = path + ".weight";
      copy.set_compute(own.base.compute());
      copy.set_trainable(true);
      copy.bias().trainable = false;  // PEFT's file would hold it too; a Llama's linear layers have none
      set.slots.size() > static_cast<std::size_t>(s) ? set.slots[static_cast<std::size_t>(s)].reset() : void();
      set.copies.emplace(s, AdaptedLinear(lowrank::AnyLinear(copy)));
    }
    lowrank::check<lowrank::ValueError>(found, "modules_to_save", "no module is named \"", name, "\"; the model has ",
                                        lowrank::detail::near_names(name, all));
  }
}

}  // namespace

LoraSet new_lora(const Llama& model, const LoraConfig& config, lowrank::LoraInit init, std::uint64_t seed) {
  const lowrank::PatternTable<Index> ranks(config.rank_pattern, "rank_pattern");
  const lowrank::PatternTable<double> alphas(config.alpha_pattern, "alpha_pattern");
  LoraSet set{std::vector<std::optional<LoraWeights<float>>>(static_cast<std::size_t>(model.slots()))};
  const bool has_table = targets_table(config);
  for (const Index s : target_slots(model, config)) {
    const std::string path = slot_path(model.config, s);
    set.slots[static_cast<std::size_t>(s)] =
        new_weights(model, s, config, ranks.value(path, config.rank), alphas.value(path, config.alpha), init, seed);
  }
  if (has_table) {
    const std::string path = "model.embed_tokens";
    const Index rank = ranks.value(path, config.rank);
    lowrank::check<lowrank::ValueError>(!is_dora(config) && !config.lora_bias, "new_lora", path,
                                        " takes plain LoRA; leave embed_tokens out of the targets of DoRA and lora_bias");
    set.embedding = new_table_update(model, rank, scale_of(config, path, rank, alphas.value(path, config.alpha)), seed);
  }
  add_copies(model, config.modules_to_save, set);
  return set;
}

namespace {

/// A vector of a file as a parameter [n, 1].
lowrank::Parameter<float> vector_parameter(std::string name, const lowrank::StoredTensor& tensor, Index size) {
  const std::vector<float> values = lowrank::to_floats(tensor);
  lowrank::check<lowrank::ShapeError>(static_cast<Index>(values.size()) == size, "bind", tensor.name, " is ",
                                      lowrank::shape_text(tensor.shape), " but the layer has ", size, " outputs");
  return detail::trainable(std::move(name), Eigen::Map<const lowrank::Weight<float>>(values.data(), size, 1));
}

LoraWeights<float> bind_layer(const Llama& model, Index s, const std::string& path, const lowrank::ModuleTensors& layer) {
  const bool turned = detail::has_interleaved_rows(model, s);
  const auto by_rows = [&](lowrank::Weight<float> values) {
    return turned ? detail::reorder_rows(values, model.config.head_size, false) : values;
  };
  LoraWeights<float> weights{
      lowrank::LoraWeights<float>{.a = detail::trainable(path + ".lora_A.weight", lowrank::to_weight(layer.a())),
                                  .b = detail::trainable(path + ".lora_B.weight", by_rows(lowrank::to_weight(layer.b()))),
                                  .scale = static_cast<float>(layer.scale)}};
  const Index out = weights.b.rows();
  if (const auto* bias = layer.bias()) {
    weights.bias = vector_parameter(path + ".lora_B.bias", *bias, out);
    weights.bias.value = by_rows(weights.bias.value);
  }
  if (const auto* magnitude = layer.find("lora_magnitude_vector")) {
    weights.magnitude = vector_parameter(path + ".lora_magnitude_vector", *magnitude, out);
    weights.magnitude.value = by_rows(weights.magnitude.value);
    weights.weight_squares = lowrank::row_squares<float>(model.layer(s).base.source());
  }
  return weights;
}

/// The slot that a saved tensor replaces as a whole: PATH.weight of a linear layer or of the token table.
Index copied_slot(const Llama& model, const std::vector<lowrank::ModuleShape>& all, const lowrank::StoredTensor& tensor) {
  std::string path = tensor.name;
  for (const std::string end : {".weight", ".base_layer"})
    if (path.ends_with(end)) path.resize(path.size() - end.size());
  for (Index s = 0; s < model.slots(); ++s)
    if (all[static_cast<std::size_t>(s)].path == path) return s;
  lowrank::check<lowrank::ValueError>(path == "model.embed_tokens", "bind", "the adapter brings a full copy of ", tensor.name,
                                      "; copies of linear layers, lm_head and embed_tokens are supported");
  return model.embedding_slot();
}

void bind_copy(const Llama& model, const std::vector<lowrank::ModuleShape>& all, const lowrank::StoredTensor& tensor, LoraSet& set) {
  const Index s = copied_slot(model, all, tensor);
  const AdaptedLinear& own = s == model.embedding_slot() ? model.embedding : model.layer(s);
  lowrank::Weight<float> w = lowrank::to_weight(tensor);
  lowrank::check<lowrank::ShapeError>(w.rows() == own.out_features() && w.cols() == own.in_features(), "bind", tensor.name, " is ",
                                      lowrank::shape_text(tensor.shape), " but the model has [", own.out_features(), ", ",
                                      own.in_features(), "]; was it trained on another base?");
  if (detail::has_interleaved_rows(model, s)) w = detail::reorder_rows(w, model.config.head_size, false);
  lowrank::Linear<float> copy(std::move(w), own.base.bias().value);
  copy.weight().name = tensor.name;
  copy.set_compute(own.base.compute());
  const bool is_base = tensor.name.ends_with(".base_layer.weight");  // PEFT saves a table that it adapts beside the update
  copy.set_trainable(!is_base);
  set.copies.insert_or_assign(s, AdaptedLinear(lowrank::AnyLinear(copy)));
  if (is_base && s == model.embedding_slot() && !model.separate_head && !set.copies.contains(model.head_slot()))
    set.copies.emplace(model.head_slot(), set.copies.at(s));
}

void add_table_and_copies(const Llama& model, const LoraSet& set, Adapter& adapter, std::vector<std::string>& paths) {
  const std::string table = "model.embed_tokens";
  if (set.embedding) {
    adapter.layers[table] =
        lowrank::lora_tensors(lowrank::from_weight(table + ".lora_embedding_A", set.embedding->a.value),
                              lowrank::from_weight(table + ".lora_embedding_B", set.embedding->b.value), set.embedding->scale, true);
    paths.push_back("embed_tokens");
  }
  for (const auto& [s, copy] : set.copies) {
    const auto* dense = copy.base.get_if<lowrank::Linear<float>>();
    const bool is_tied_copy = s == model.head_slot() && !dense->weight_trainable();  // of the table that is saved itself
    if (is_tied_copy) continue;
    const auto& w = dense->weight().value;
    adapter.saved.push_back(lowrank::from_weight(
        dense->weight().name, detail::has_interleaved_rows(model, s) ? detail::reorder_rows(w, model.config.head_size, true) : w));
  }
}

}  // namespace

LoraSet bind(const Llama& model, const Adapter& adapter, double weight) {
  std::vector<lowrank::ModuleShape> all = modules(model);
  const lowrank::ModuleShape table{"model.embed_tokens", model.config.vocabulary, model.config.hidden};
  all.push_back(table);
  lowrank::check_fits(adapter, all);
  all.pop_back();
  LoraSet set{std::vector<std::optional<LoraWeights<float>>>(static_cast<std::size_t>(model.slots()))};
  for (Index s = 0; s < model.slots(); ++s) {
    const std::string& path = all[static_cast<std::size_t>(s)].path;
    if (const auto found = adapter.layers.find(path); found != adapter.layers.end())
      set.slots[static_cast<std::size_t>(s)] = bind_layer(model, s, path, found->second);
  }
  if (const auto found = adapter.layers.find(table.path); found != adapter.layers.end()) {
    const lowrank::ModuleTensors& layer = found->second;
    lowrank::check<lowrank::ValueError>(layer.tensors.size() == 2, "bind", table.path, " has a tensor beside A and B, ",
                                        "which an embedding does not apply");
    set.embedding = {lowrank::LoraWeights<float>{.a = detail::trainable(table.path + ".lora_embedding_A", lowrank::to_weight(layer.a())),
                                                 .b = detail::trainable(table.path + ".lora_embedding_B", lowrank::to_weight(layer.b())),
                                                 .scale = static_cast<float>(layer.scale)}};
  }
  for (const lowrank::StoredTensor& tensor : adapter.saved) bind_copy(model, all, tensor, set);
  scale_set(set, weight);
  for (auto& weights : set.slots)
    if (weights) weights->dropout = static_cast<float>(adapter.config.dropout);
  return set;
}

void scale_set(LoraSet& set, double weight) {
  if (weight == 1) return;
  lowrank::check<lowrank::ValueError>(set.copies.empty(), "adapter",
                                      "an adapter that replaces whole layers (modules_to_save) can be used at scale 1 only");
  for (auto& weights : set.slots) {
    if (!weights) continue;
    lowrank::check<lowrank::ValueError>(
        !weights->is_dora(), "adapter", weights->a.name,
        ": the update of a DoRA adapter is no sum that a scale could change; use it at scale 1, or merge it");
    weights->scale *= static_cast<float>(weight);
  }
  if (set.embedding) set.embedding->scale *= static_cast<float>(weight);
}

Adapter to_adapter(const Llama& model, const LoraSet& set, LoraConfig config) {
  std::vector<std::string> paths;
  Adapter adapter;
  for (Index s = 0; s < model.slots(); ++s) {
    const auto& weights = set.slots[static_cast<std::size_t>(s)];
    if (!weights) continue;
    const std::string path = slot_path(model.config, s);
    const bool turned = detail::has_interleaved_rows(model, s);
    const auto by_rows = [&](const lowrank::Weight<float>& values) {
      return turned ? detail::reorder_rows(values, model.config.head_size, true) : values;
    };
    const auto vector = [&](const std::string& name, const lowrank::Weight<float>& values) {
      const lowrank::Weight<float> rows = by_rows(values);
      return lowrank::make_tensor<float>(path + name, {rows.rows()}, std::span(rows.data(), static_cast<std::size_t>(rows.size())));
    };
    auto& layer = adapter.layers[path];
    layer = lowrank::lora_tensors(lowrank::from_weight(path + ".lora_A.weight", weights->a.value),
                                  lowrank::from_weight(path + ".lora_B.weight", by_rows(weights->b.value)), weights->scale);
    if (weights->is_dora()) layer.tensors["lora_magnitude_vector"] = vector(".lora_magnitude_vector", weights->magnitude.value);
    if (!weights->bias.empty()) layer.tensors["lora_B.bias"] = vector(".lora_B.bias", weights->bias.value);
    const std::string module = s == model.head_slot() ? path : module_name(static_cast<Projection>(s % projections));
    const std::string last = module.substr(module.rfind('.') + 1);
    if (std::find(paths.begin(), paths.end(), last) == paths.end()) paths.push_back(last);
  }
  add_table_and_copies(model, set, adapter, paths);
  if (lowrank::detail::is_all_linear(config.target_modules)) config.target_modules = paths;  // as PEFT saves it
  adapter.config = std::move(config);
  return adapter;
}

namespace {

/// Σ sᵢ Bᵢ Aᵢ of the sets that have the update: the factors side by side.
std::optional<LoraWeights<float>> sum_updates(const std::vector<const LoraWeights<float>*>& parts) {
  if (parts.empty()) return std::nullopt;
  const LoraWeights<float>& first = *parts.front();
  if (parts.size() == 1) return first;
  Index rank = 0, at = 0;
  for (const auto* part : parts) {
    lowrank::check<lowrank::ValueError>(!part->is_dora(), "adapter_sum", part->a.name,
                                        ": DoRA adapters do not add up; merge one of them, or use it alone");
    rank += part->rank();
  }
  lowrank::Weight<float> a(rank, first.a.cols()), b(first.b.rows(), rank), bias;
  for (const auto* part : parts) {
    a.middleRows(at, part->rank()) = part->a.value;
    b.middleCols(at, part->rank()) = part->scale * part->b.value;
    at += part->rank();
    if (part->bias.empty()) continue;
    if (bias.size() == 0) bias.setZero(first.b.rows(), 1);
    bias += part->scale * part->bias.value;
  }
  LoraWeights<float> total{lowrank::LoraWeights<float>{
      .a = detail::trainable(first.a.name, std::move(a)), .b = detail::trainable(first.b.name, std::move(b)), .scale = 1}};
  if (bias.size() > 0) total.bias = detail::trainable(first.bias.name, std::move(bias));
  return total;
}

}  // namespace

LoraSet sum(const std::vector<LoraSet>& sets) {
  LoraSet total{std::vector<std::optional<LoraWeights<float>>>(sets.front().slots.size())};
  for (std::size_t s = 0; s < total.slots.size(); ++s) {
    std::vector<const LoraWeights<float>*> parts;
    for (const LoraSet& set : sets)
      if (set.slots[s]) parts.push_back(&*set.slots[s]);
    total.slots[s] = sum_updates(parts);
  }
  std::vector<const LoraWeights<float>*> tables;
  for (const LoraSet& set : sets) {
    if (set.embedding) tables.push_back(&*set.embedding);
    for (const auto& [slot, copy] : set.copies)
      lowrank::check<lowrank::ValueError>(total.copies.emplace(slot, copy).second, "adapter_sum",
                                          "two adapters bring a full copy of the same layer; use one of them");
  }
  total.embedding = sum_updates(tables);
  return total;
}

namespace {

/// Calls visitor with every parameter of a set.
template <class Set, class Visitor>
void visit_set(Set& set, const Visitor& visitor) {
  const auto visit_weights = [&](auto& weights) {
    for (auto* parameter : {&weights.a, &weights.b, &weights.bias, &weights.magnitude})
      if (!parameter->empty()) visitor(*parameter);
  };
  for (auto& weights : set.slots)
    if (weights) visit_weights(*weights);
  if (set.embedding) visit_weights(*set.embedding);
  for (auto& [slot, copy] : set.copies)
    if (auto* dense = copy.base.template get_if<lowrank::Linear<float>>()) visitor(dense->weight());
}

}  // namespace

std::vector<ParameterRef<float>> parameters(Llama&, LoraSet& set) {
  std::vector<ParameterRef<float>> all;
  visit_set(set, [&](auto& parameter) {
    if (parameter.needs_grad()) all.push_back(reference(parameter));
  });
  return all;
}

Index parameter_count(const LoraSet& set) {
  Index count = 0;
  visit_set(set, [&](const auto& parameter) { count += parameter.size(); });
  return count;
}

}  // namespace transformer
