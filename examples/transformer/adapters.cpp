#include <transformer/adapters.hpp>

#include <algorithm>
#include <sstream>
#include <string_view>

namespace transformer {

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
  std::vector<Index> slots = lowrank::target_slots(model.named_layers(), config);
  std::erase(slots, model.embedding_slot());
  return slots;
}

namespace {

/// Tensors that have a row for each output of their module.
bool is_by_outputs(std::string_view name) {
  constexpr std::string_view names[] = {"lora_B.weight", "lora_B.bias", "lora_magnitude_vector", "lora_B", "vera_lambda_b", "ia3_l"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

/// A tensor of a module whose rows lie in another order in a GGUF file.
lowrank::StoredTensor reordered(const lowrank::StoredTensor& tensor, Index head_size, bool to_halves) {
  lowrank::Weight<float> values = lowrank::to_weight(tensor);
  if (tensor.shape.size() == 1) values.resize(values.size(), 1);
  lowrank::StoredTensor result = lowrank::from_weight(tensor.name, detail::reorder_rows(values, head_size, to_halves));
  result.shape = tensor.shape;
  return result;
}

/// The adapter with the rows of interleaved layers in the order of the model's weights, or in that of files.
Adapter with_rows(const Llama& model, Adapter adapter, bool to_halves) {
  for (Index s = 0; s < model.head_slot(); ++s) {
    if (!detail::has_interleaved_rows(model, s)) continue;
    const std::string path = slot_path(model.config, s);
    if (const auto module = adapter.layers.find(path); module != adapter.layers.end())
      for (auto& [name, tensor] : module->second.tensors)
        if (is_by_outputs(name) && tensor.shape.front() == model.layer(s).out_features())
          tensor = reordered(tensor, model.config.head_size, to_halves);
    for (lowrank::StoredTensor& tensor : adapter.saved)
      if (tensor.name == path + ".weight" || tensor.name == path + ".base_layer.weight")
        tensor = reordered(tensor, model.config.head_size, to_halves);
  }
  return adapter;
}

}  // namespace

LoraSet new_lora(const Llama& model, const LoraConfig& config, lowrank::LoraInit init, std::uint64_t seed) {
  return lowrank::new_updates(model.named_layers(), config, init, seed);
}

LoraSet bind(const Llama& model, const Adapter& adapter, double weight) {
  const auto layers = model.named_layers();
  lowrank::check_fits(adapter, lowrank::module_shapes(layers));  // before rows are moved
  LoraSet set = lowrank::apply(with_rows(model, adapter, false), layers);
  lowrank::scale(set, weight);
  return set;
}

Adapter to_adapter(const Llama& model, const LoraSet& set, LoraConfig config) {
  return with_rows(model, lowrank::adapter_of(set, model.named_layers(), std::move(config)), true);
}

}  // namespace transformer
