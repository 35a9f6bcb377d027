#include <transformer/adapters.hpp>

#include <algorithm>
#include <sstream>
#include <string_view>

#include <transformer/architecture.hpp>

namespace transformer {

std::vector<lowrank::NamedLayer> Transformer::named_layers() const {
  std::vector<lowrank::NamedLayer> named;
  for (Index s = 0; s < slots(); ++s) named.push_back({config.path(s), &layer(s)});
  named.push_back({config.path(embedding_slot()), &embedding, true});
  return named;
}

std::vector<lowrank::NamedNorm> Transformer::named_norms() const {
  std::vector<lowrank::NamedNorm> named;
  for (Index i = 0; i < config.layers; ++i)
    for (const NormName& norm : architecture_of(config).norms)
      named.push_back({norm_index(i, norm.place), lowrank::concat("model.layers.", i, '.', norm.folder),
                       &blocks[static_cast<std::size_t>(i)].norm(norm.place)});
  named.push_back({norm_index(config.layers, {}), "model.norm", &final_norm});
  return named;
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

std::vector<Index> target_slots(const Transformer& model, const LoraConfig& config) {
  std::vector<Index> slots = lowrank::target_slots(model, config);
  std::erase(slots, model.embedding_slot());
  return slots;
}

namespace {

using lowrank::Outputs;

/// A tensor whose outputs lie in another order in a GGUF file.
lowrank::StoredTensor reordered(const lowrank::StoredTensor& tensor, Outputs outputs, Index head_size, bool to_halves) {
  lowrank::check<lowrank::ValueError>(outputs != Outputs::mixed && tensor.shape.size() <= 2, "adapter", tensor.name,
                                      ": a GGUF file has the rows of q_proj and k_proj in another order, which this update cannot follow; "
                                      "leave these two out of the targets, or use the model's Hugging Face folder");
  lowrank::Weight<float> values = lowrank::to_weight(tensor);
  if (tensor.shape.size() == 1) values.resize(values.size(), 1);
  const bool by_columns = outputs == Outputs::columns;
  if (by_columns) values = lowrank::Weight<float>(values.transpose());
  lowrank::Weight<float> turned = detail::reorder_rows(values, head_size, to_halves);
  if (by_columns) turned = lowrank::Weight<float>(turned.transpose());
  lowrank::StoredTensor result = lowrank::from_weight(tensor.name, turned);
  result.shape = tensor.shape;
  return result;
}

/// Copies of norms with the number that files have: w, or w − 1 in families whose files hold that.
void shift_norms(const Transformer& model, Adapter& adapter, float by) {
  for (const lowrank::NamedNorm& norm : model.named_norms())
    for (lowrank::StoredTensor& tensor : adapter.saved) {
      if (tensor.name != norm.path + ".weight") continue;
      std::vector<float> values = lowrank::to_floats(tensor);
      for (float& w : values) w += by;
      tensor = lowrank::make_tensor<float>(tensor.name, tensor.shape, values);
    }
}

/// The adapter with the rows of interleaved layers in the order of the model's weights, or in that of files.
Adapter with_rows(const Transformer& model, Adapter adapter, bool to_halves) {
  const lowrank::Method& method = lowrank::method_of(adapter.config);
  if (architecture_of(model.config).norms_add_one) shift_norms(model, adapter, to_halves ? -1.0f : 1.0f);
  for (Index s = 0; s < model.head_slot(); ++s) {
    if (!detail::has_interleaved_rows(model, s)) continue;
    const std::string path = model.config.path(s);
    if (const auto module = adapter.layers.find(path); module != adapter.layers.end())
      for (auto& [name, tensor] : module->second.tensors) {
        const lowrank::MethodTensor* const own = method.find(name);
        const Outputs outputs = own ? own->outputs : Outputs::none;
        const Index count = outputs == Outputs::columns ? tensor.shape.back() : tensor.shape.front();
        if (outputs == Outputs::mixed || (outputs != Outputs::none && count == model.layer(s).out_features()))
          tensor = reordered(tensor, outputs, model.config.head_size, to_halves);
      }
    for (lowrank::StoredTensor& tensor : adapter.saved)
      if (tensor.name == path + ".weight" || tensor.name == path + ".base_layer.weight" || tensor.name == path + ".bias")
        tensor = reordered(tensor, Outputs::rows, model.config.head_size, to_halves);
  }
  return adapter;
}

/// Throws ValueError where the modules share a matrix with a row for each output, which cannot follow the rows of q and k in a GGUF file.
void check_shared_rows(const Transformer& model, const std::vector<Index>& slots, const LoraConfig& config) {
  const bool is_turned = std::any_of(slots.begin(), slots.end(), [&](Index s) { return detail::has_interleaved_rows(model, s); });
  lowrank::check<lowrank::ValueError>(
      !is_turned || lowrank::method_of(config).shared.empty(), "adapter", "the layers of a ", lowrank::method_of(config).name,
      " adapter share their projections, and a GGUF file has the rows of q_proj and k_proj in another order; "
      "leave these two out of the targets, or use the model's Hugging Face folder");
}

}  // namespace

LoraSet new_lora(const Transformer& model, const LoraConfig& config, lowrank::LoraInit init, std::uint64_t seed) {
  check_shared_rows(model, target_slots(model, config), config);
  LoraSet set = lowrank::new_updates(model, config, init, seed);
  static_cast<void>(to_adapter(model, set, config));  // what could not be saved is not trained
  return set;
}

Index vocabulary(const Transformer& model, const LoraSet* set) {
  const AdaptedLinear* const copy = set ? set->copy_of(model.head_slot()) : nullptr;
  return (copy ? *copy : model.head()).out_features();
}

LoraSet bind(const Transformer& model, const Adapter& adapter, double weight) {
  const auto layers = model.named_layers();
  lowrank::check_fits(adapter, lowrank::module_shapes(layers));  // before rows are moved
  std::vector<Index> changed;
  for (Index s = 0; s < model.slots(); ++s)
    if (adapter.layers.contains(layers[static_cast<std::size_t>(s)].path)) changed.push_back(s);
  check_shared_rows(model, changed, adapter.config);
  LoraSet set = lowrank::apply(with_rows(model, adapter, false), model);
  lowrank::scale(set, weight);
  return set;
}

lowrank::FittedAdapter to_lora(const Transformer& model, const LoraSet& set, const lowrank::RankChoice& choice) {
  lowrank::FittedAdapter result = lowrank::to_lora(set, model, choice);
  result.adapter = with_rows(model, std::move(result.adapter), true);
  return result;
}

Adapter to_adapter(const Transformer& model, const LoraSet& set, LoraConfig config) {
  return with_rows(model, lowrank::adapter_of(set, model, std::move(config)), true);
}

std::uint64_t fingerprint(const Adapter& adapter) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3u; };
  adapter.visit([&](const lowrank::StoredTensor& tensor) {
    for (const char c : tensor.name) add(static_cast<unsigned char>(c));
    for (std::size_t i = 0; i < tensor.bytes.size(); ++i) add(std::to_integer<unsigned char>(tensor.bytes.data()[i]));
  });
  return hash;
}

}  // namespace transformer
