#include <transformer/adapters.hpp>

#include <algorithm>
#include <sstream>

#include <lowrank/nn/init.hpp>

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

std::vector<Index> target_slots(const Llama& model, const LoraConfig& config) {
  std::vector<lowrank::ModuleShape> all = modules(model);
  if (lowrank::detail::is_all_linear(config.target_modules)) all.pop_back();
  const std::vector<std::string> paths = lowrank::select_targets(config, all);
  std::vector<Index> slots;
  for (Index s = 0; s < static_cast<Index>(all.size()); ++s)
    if (std::find(paths.begin(), paths.end(), all[static_cast<std::size_t>(s)].path) != paths.end()) slots.push_back(s);
  return slots;
}

LoraSet new_lora(const Llama& model, const LoraConfig& config, lowrank::LoraInit init, std::uint64_t seed) {
  const lowrank::PatternTable<Index> ranks(config.rank_pattern, "rank_pattern");
  const lowrank::PatternTable<double> alphas(config.alpha_pattern, "alpha_pattern");
  LoraSet set{std::vector<std::optional<LoraWeights<float>>>(static_cast<std::size_t>(model.slots()))};
  for (const Index s : target_slots(model, config)) {
    const std::string path = slot_path(model.config, s);
    const Index rank = ranks.value(path, config.rank), in = model.layer(s).in_features(), out = model.layer(s).out_features();
    lowrank::check<lowrank::ValueError>(rank > 0 && rank <= std::min(in, out), "new_lora", "rank ", rank, " for ", path, " [", out, ", ",
                                        in, "]; give a rank from 1 to ", std::min(in, out));
    lowrank::Weight<float> a(rank, in);
    init_lora_a(a, init, lowrank::Random(seed, static_cast<std::uint64_t>(s)));
    const double scale = lowrank::lora_scale(rank, alphas.value(path, config.alpha), config.use_rslora);
    set.slots[static_cast<std::size_t>(s)] = {.a = detail::trainable(path + ".lora_A.weight", std::move(a)),
                                              .b = detail::trainable(path + ".lora_B.weight", lowrank::Weight<float>::Zero(out, rank)),
                                              .scale = static_cast<float>(scale),
                                              .dropout = static_cast<float>(config.dropout),
                                              .dropout_seed = seed ^ (static_cast<std::uint64_t>(s) * 0x9E3779B97F4A7C15u)};
  }
  return set;
}

LoraSet bind(const Llama& model, const Adapter& adapter, double weight) {
  const std::vector<lowrank::ModuleShape> all = modules(model);
  lowrank::check_fits(adapter, all);
  lowrank::check<lowrank::ValueError>(adapter.saved.empty(), "bind", "the adapter brings full copies of modules (",
                                      adapter.saved.empty() ? "" : adapter.saved.front().name,
                                      "), which this model does not exchange; train it without modules_to_save");
  LoraSet set{std::vector<std::optional<LoraWeights<float>>>(static_cast<std::size_t>(model.slots()))};
  for (Index s = 0; s < model.slots(); ++s) {
    const std::string& path = all[static_cast<std::size_t>(s)].path;
    const auto found = adapter.layers.find(path);
    if (found == adapter.layers.end()) continue;
    const lowrank::LoraTensors& layer = found->second;
    lowrank::check<lowrank::ValueError>(!layer.magnitude && !layer.bias && !layer.is_embedding, "bind", path, " has a ",
                                        layer.magnitude ? "DoRA magnitude" : "bias",
                                        ", which this model does not apply; use a plain LoRA adapter");
    lowrank::Weight<float> b = lowrank::to_weight(layer.b);
    if (detail::has_interleaved_rows(model, s)) b = detail::reorder_rows(b, model.config.head_size, false);
    set.slots[static_cast<std::size_t>(s)] = {.a = detail::trainable(path + ".lora_A.weight", lowrank::to_weight(layer.a)),
                                              .b = detail::trainable(path + ".lora_B.weight", std::move(b)),
                                              .scale = static_cast<float>(layer.scale * weight),
                                              .dropout = static_cast<float>(adapter.config.dropout)};
  }
  return set;
}

Adapter to_adapter(const Llama& model, const LoraSet& set, LoraConfig config) {
  std::vector<std::string> paths;
  Adapter adapter;
  for (Index s = 0; s < model.slots(); ++s) {
    const auto& weights = set.slots[static_cast<std::size_t>(s)];
    if (!weights) continue;
    const std::string path = slot_path(model.config, s);
    const auto& b = weights->b.value;
    adapter.layers[path] = {
        .a = lowrank::from_weight(path + ".lora_A.weight", weights->a.value),
        .b = lowrank::from_weight(path + ".lora_B.weight",
                                  detail::has_interleaved_rows(model, s) ? detail::reorder_rows(b, model.config.head_size, true) : b),
        .scale = weights->scale,
        .magnitude = {},
        .bias = {}};
    const std::string module = s == model.head_slot() ? path : module_name(static_cast<Projection>(s % projections));
    const std::string last = module.substr(module.rfind('.') + 1);
    if (std::find(paths.begin(), paths.end(), last) == paths.end()) paths.push_back(last);
  }
  if (lowrank::detail::is_all_linear(config.target_modules)) config.target_modules = paths;  // as PEFT saves it
  adapter.config = std::move(config);
  return adapter;
}

LoraSet sum(const std::vector<LoraSet>& sets) {
  LoraSet total{std::vector<std::optional<LoraWeights<float>>>(sets.front().slots.size())};
  for (std::size_t s = 0; s < total.slots.size(); ++s) {
    Index rank = 0;
    const LoraWeights<float>* first = nullptr;
    for (const LoraSet& set : sets) {
      if (!set.slots[s]) continue;
      rank += set.slots[s]->a.rows();
      if (!first) first = &*set.slots[s];
    }
    if (!first) continue;
    lowrank::Weight<float> a(rank, first->a.cols()), b(first->b.rows(), rank);
    Index at = 0;
    for (const LoraSet& set : sets) {
      if (!set.slots[s]) continue;
      const LoraWeights<float>& part = *set.slots[s];
      a.middleRows(at, part.a.rows()) = part.a.value;
      b.middleCols(at, part.a.rows()) = part.scale * part.b.value;
      at += part.a.rows();
    }
    total.slots[s] = {.a = detail::trainable(first->a.name, std::move(a)), .b = detail::trainable(first->b.name, std::move(b)), .scale = 1};
  }
  return total;
}

std::vector<ParameterRef<float>> parameters(Llama&, LoraSet& set) {
  std::vector<ParameterRef<float>> all;
  for (auto& weights : set.slots)
    if (weights) all.push_back(reference(weights->a)), all.push_back(reference(weights->b));
  return all;
}

Index parameter_count(const LoraSet& set) {
  Index count = 0;
  for (const auto& weights : set.slots)
    if (weights) count += weights->a.size() + weights->b.size();
  return count;
}

Llama merged(const Llama& model, const LoraSet& set) {
  Llama result = model;
  for (Index s = 0; s < model.slots(); ++s) {
    const auto& update = set.slots[static_cast<std::size_t>(s)];
    if (!update) continue;
    lowrank::Weight<float> w = dense_weight(model.layer(s));
    w.noalias() += update->scale * update->b.value * update->a.value;  // [out, r] · [r, in]
    AdaptedLinear layer(lowrank::Linear<float>(std::move(w), model.layer(s).base.bias().value));
    layer.base.set_trainable(false);
    if (s == model.head_slot()) result.separate_head = layer;
    result.layer(s) = std::move(layer);
  }
  return result;
}

}  // namespace transformer
