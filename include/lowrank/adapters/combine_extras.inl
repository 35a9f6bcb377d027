#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <vector>

/// What surrounds the factors when adapters are combined: which layers meet, biases, full copies of modules, configurations.

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// One adapter's share of a layer.
struct LayerPart {
  const LoraTensors* layer;
  double weight;
};
using LayerParts = std::map<std::string, std::vector<LayerPart>>;

LOWRANK_INLINE void check_combinable(std::span<const WeightedAdapter> adapters) {
  check<ValueError>(!adapters.empty(), "combine", "no adapter is given");
  for (const WeightedAdapter& one : adapters) {
    check<ValueError>(std::isfinite(one.weight), "combine", "a weight is ", one.weight, "; weights must be finite");
    const LoraConfig& config = one.adapter->config;
    check<ValueError>(config.fan_in_fan_out == adapters.front().adapter->config.fan_in_fan_out, "combine",
                      "one adapter has fan_in_fan_out, another has not; they belong to different models");
    for (const auto& [path, layer] : one.adapter->layers)
      check<ValueError>(
          !layer.magnitude, "combine", path,
          " has a DoRA magnitude: its update m (W + s B A) / ‖W + s B A‖ is no sum; merge each adapter into the base and extract "
          "from the merged weights");
  }
}

LOWRANK_INLINE LayerParts parts_by_layer(std::span<const WeightedAdapter> adapters) {
  LayerParts layers;
  for (const WeightedAdapter& one : adapters)
    for (const auto& [path, layer] : one.adapter->layers) layers[path].push_back({&layer, one.weight});
  for (const auto& [path, parts] : layers)
    for (const LayerPart& part : parts) {
      const LoraTensors &first = *parts.front().layer, &other = *part.layer;
      check<ShapeError>(first.in() == other.in() && first.out() == other.out() && first.is_embedding == other.is_embedding, "combine", path,
                        " is [", first.out(), ", ", first.in(), "] in one adapter and [", other.out(), ", ", other.in(),
                        "] in another; they were trained on different models");
    }
  return layers;
}

LOWRANK_INLINE Index largest_rank(std::span<const WeightedAdapter> adapters) {
  Index rank = 1;
  for (const WeightedAdapter& one : adapters)
    for (const auto& [path, layer] : one.adapter->layers) rank = std::max(rank, layer.rank());
  return rank;
}

/// Biases of B add up as the updates do, bᵢ scaled by wᵢ sᵢ; where one layer has one, every linear layer gets one.
LOWRANK_INLINE void combine_biases(Adapter& result, const LayerParts& layers, bool is_linear) {
  bool any = false;
  for (const auto& [path, parts] : layers)
    for (const LayerPart& part : parts) {
      any = any || part.layer->bias;
      check<ValueError>(is_linear || !part.layer->bias, "combine", path,
                        " has a bias (lora_bias), for which this rule is not defined; use concat or linear");
    }
  result.config.lora_bias = any;
  for (auto& [path, layer] : result.layers) {
    if (!any || layer.is_embedding) continue;
    Eigen::VectorXd sum = Eigen::VectorXd::Zero(layer.out());
    std::vector<const StoredTensor*> tensors;
    for (const LayerPart& part : layers.at(path)) {
      if (!part.layer->bias) continue;
      sum += part.weight * part.layer->scale / layer.scale * to_weight(*part.layer->bias).row(0).transpose().cast<double>();
      tensors.push_back(&*part.layer->bias);
    }
    layer.bias = to_tensor(path + ".lora_B.bias", sum, tensors.empty() ? DType::f32 : common_dtype(tensors), true);
  }
}

LOWRANK_INLINE bool same_bytes(const StoredTensor& x, const StoredTensor& y) {
  return x.dtype == y.dtype && x.shape == y.shape && std::memcmp(x.bytes.data(), y.bytes.data(), x.bytes.size()) == 0;
}

/// One full tensor from the copies that adapters bring, each W₀ + its change. The sum of the weighted changes is Σ wᵢ Wᵢ + (1 - Σ wᵢ) W₀,
/// and W₀ is not here: only weights that sum to 1 make it unnecessary. A copy of the base itself is kept as it is.
LOWRANK_INLINE StoredTensor combine_copies(const std::vector<std::pair<const StoredTensor*, double>>& copies) {
  const StoredTensor& first = *copies.front().first;
  const bool equal = std::all_of(copies.begin(), copies.end(), [&](const auto& c) { return same_bytes(*c.first, first); });
  double sum = 0;
  for (const auto& [tensor, weight] : copies) sum += weight;
  const bool is_base = first.name.find("base_layer") != std::string::npos;
  const bool sums_to_one = std::abs(sum - 1) <= 1e-9;
  check<ValueError>((equal && is_base) || sums_to_one, "combine", first.name,
                    " is a full copy of a module, and the weights of the adapters that bring it sum to ", sum,
                    ", not 1: its combination needs the base; give weights that sum to 1, or adapters without modules_to_save");
  if (equal) return first;
  std::vector<const StoredTensor*> tensors;
  std::vector<double> total(static_cast<std::size_t>(first.size()));
  for (const auto& [tensor, weight] : copies) {
    check<ShapeError>(tensor->shape == first.shape, "combine", first.name, " is ", shape_text(first.shape), " in one adapter and ",
                      shape_text(tensor->shape), " in another");
    const std::vector<float> values = to_floats(*tensor);
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += weight * static_cast<double>(values[i]);
    tensors.push_back(tensor);
  }
  const Eigen::Map<const Eigen::VectorXd> column(total.data(), first.size());
  StoredTensor result = to_tensor(first.name, column, common_dtype(tensors), true);
  result.shape = first.shape;
  return result;
}

LOWRANK_INLINE void combine_saved(Adapter& result, std::span<const WeightedAdapter> adapters) {
  std::map<std::string, std::vector<std::pair<const StoredTensor*, double>>> by_name;
  for (const WeightedAdapter& one : adapters)
    for (const StoredTensor& tensor : one.adapter->saved) by_name[tensor.name].emplace_back(&tensor, one.weight);
  for (const auto& [name, copies] : by_name) result.saved.push_back(combine_copies(copies));
}

LOWRANK_INLINE void add_names(std::vector<std::string>& names, const std::vector<std::string>& more) {
  for (const std::string& name : more)
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

/// The targets of all where they agree, else every module by its path: a union of patterns could name modules that no adapter has.
LOWRANK_INLINE void combine_targets(LoraConfig& config, const Adapter& result, std::span<const WeightedAdapter> adapters) {
  const LoraConfig& first = adapters.front().adapter->config;
  const auto same = [&](const WeightedAdapter& one) {
    const LoraConfig& c = one.adapter->config;
    return c.target_modules == first.target_modules && c.exclude_modules == first.exclude_modules &&
           c.layers_to_transform == first.layers_to_transform && c.layers_pattern == first.layers_pattern &&
           c.modules_to_save == first.modules_to_save;
  };
  if (std::all_of(adapters.begin(), adapters.end(), same)) {
    config.target_modules = first.target_modules;
    config.exclude_modules = first.exclude_modules;
    config.layers_to_transform = first.layers_to_transform;
    config.layers_pattern = first.layers_pattern;
    return;
  }
  std::vector<std::string> paths;
  for (const auto& [path, layer] : result.layers) paths.push_back(path);
  config.target_modules = std::move(paths);
}

LOWRANK_INLINE void combine_configs(Adapter& result, std::span<const WeightedAdapter> adapters) {
  LoraConfig& config = result.config;
  const LoraConfig& first = adapters.front().adapter->config;
  config.fan_in_fan_out = first.fan_in_fan_out;
  config.task_type = first.task_type;
  config.base_model = first.base_model;
  for (const WeightedAdapter& one : adapters) {
    const LoraConfig& other = one.adapter->config;
    add_names(config.modules_to_save, other.modules_to_save);
    if (other.bias != "none") config.bias = other.bias;
    if (!config.task_type) config.task_type = other.task_type;
    if (!config.base_model) config.base_model = other.base_model;
    if (other.base_model && config.base_model && *other.base_model != *config.base_model)
      result.notes.push_back("the adapters name different base models: " + *config.base_model + " and " + *other.base_model);
  }
  combine_targets(config, result, adapters);
  set_config_ranks(result);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI
