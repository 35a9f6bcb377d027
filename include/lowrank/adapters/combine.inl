#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE CombineMethod CombineMethod::named(std::string_view name) {
  const std::string_view whole = name;
  const bool is_peft = name.starts_with("peft_");
  if (is_peft) name.remove_prefix(5);
  if (name == "concat" || name == "cat") return {CombineRule::concat, CombineForm::updates};
  const bool is_svd = name == "svd" || name.ends_with("_svd");
  if (name.ends_with("_svd")) name.remove_suffix(4);
  const CombineForm form = !is_peft ? CombineForm::updates : is_svd ? CombineForm::peft_updates : CombineForm::peft_factors;
  constexpr std::pair<std::string_view, CombineRule> rules[] = {{"linear", CombineRule::linear},
                                                                {"svd", CombineRule::linear},
                                                                {"magnitude_prune", CombineRule::magnitude_prune},
                                                                {"ties", CombineRule::ties},
                                                                {"dare_linear", CombineRule::dare_linear},
                                                                {"dare_ties", CombineRule::dare_ties}};
  for (const auto& [text, rule] : rules)
    if (name == text) return {rule, form};
  fail<ValueError>(
      "combine", "there is no method ", whole,
      "; give concat, linear, svd, ties, dare_linear, dare_ties, magnitude_prune, one of these but concat and svd with _svd, or "
      "one with the prefix peft_ for PEFT's own result");
}

namespace detail {

// ---- What surrounds the factors: which layers meet, biases, full copies of modules, configurations ---------------------------------

/// One adapter's share of a layer.
struct LayerPart {
  const ModuleTensors* layer;
  double weight;
};
using LayerParts = std::map<std::string, std::vector<LayerPart>>;

LOWRANK_INLINE void check_combinable(std::span<const WeightedAdapter> adapters) {
  check<ValueError>(!adapters.empty(), "combine", "no adapter is given");
  for (const WeightedAdapter& one : adapters) {
    check<ValueError>(is_finite(one.weight), "combine", "a weight is ", one.weight, "; weights must be finite");
    const LoraConfig& config = one.adapter->config;
    const LoraConfig& first = adapters.front().adapter->config;
    check<ValueError>(config.needs_base == first.needs_base, "combine",
                      "one adapter makes up for rounding its base (LoftQ), another does not; they belong to different bases");
    check<ValueError>(config.trained_tokens == first.trained_tokens && config.ensure_weight_tying == first.ensure_weight_tying, "combine",
                      "the adapters train other tokens (trainable_token_indices), or one of them ties the head to the table "
                      "(ensure_weight_tying); merge each of them into the base and extract from the merged weights");
    check<ValueError>(config.fan_in_fan_out == first.fan_in_fan_out, "combine",
                      "one adapter has fan_in_fan_out, another has not; they belong to different models");
    for (const auto& [path, layer] : one.adapter->layers) {
      const auto beyond = layer.beyond_sum();
      check<ValueError>(!beyond, "combine", path, " has the tensor ", beyond.value_or(""),
                        ": its update is no sum W + s B A; merge each adapter into the base and extract from the merged weights");
    }
  }
}

LOWRANK_INLINE LayerParts parts_by_layer(std::span<const WeightedAdapter> adapters) {
  LayerParts layers;
  for (const WeightedAdapter& one : adapters)
    for (const auto& [path, layer] : one.adapter->layers) layers[path].push_back({&layer, one.weight});
  for (const auto& [path, parts] : layers)
    for (const LayerPart& part : parts) {
      const ModuleTensors &first = *parts.front().layer, &other = *part.layer;
      check<ShapeError>(first.in() == other.in() && first.out() == other.out() && first.is_embedding == other.is_embedding, "combine", path,
                        " is [", first.out(), ", ", first.in(), "] in one adapter and [", other.out(), ", ", other.in(),
                        "] in another; they were trained on different models");
      check<ShapeError>(first.kernel() == other.kernel(), "combine", path, " is a convolution with the kernel ", shape_text(first.kernel()),
                        " in one adapter and ", shape_text(other.kernel()), " in another; they were trained on different models");
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
      any = any || part.layer->bias();
      check<ValueError>(is_linear || !part.layer->bias(), "combine", path,
                        " has a bias (lora_bias), for which this rule is not defined; use concat or linear");
    }
  result.config.lora_bias = any;
  for (auto& [path, layer] : result.layers) {
    if (!any || layer.is_embedding) continue;
    Eigen::VectorXd sum = Eigen::VectorXd::Zero(layer.out());
    std::vector<const StoredTensor*> tensors;
    for (const LayerPart& part : layers.at(path)) {
      if (!part.layer->bias()) continue;
      sum += part.weight * part.layer->scale / layer.scale * to_weight(*part.layer->bias()).row(0).transpose().cast<double>();
      tensors.push_back(part.layer->bias());
    }
    layer.tensors[std::string(ModuleTensors::bias_name)] =
        to_tensor(path + ".lora_B.bias", sum.cast<float>(), tensors.empty() ? DType::f32 : common_dtype(tensors), true);
  }
}

LOWRANK_INLINE bool same_bytes(const StoredTensor& x, const StoredTensor& y) {
  return x.dtype == y.dtype && x.shape == y.shape && x.bytes.size() == y.bytes.size() &&
         std::memcmp(x.bytes.data(), y.bytes.data(), x.bytes.size()) == 0;
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
  StoredTensor result = to_tensor(first.name, column.cast<float>(), common_dtype(tensors), true);
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
  config.needs_base = first.needs_base;
  config.trained_tokens = first.trained_tokens, config.ensure_weight_tying = first.ensure_weight_tying;
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

// ---- The factors -------------------------------------------------------------------------------------------------------------------

/// Σ wᵢ Dᵢ as factors.
LOWRANK_INLINE Factors sum_of(const std::vector<LayerPart>& parts) {
  std::vector<Factors> all;
  all.reserve(parts.size());
  for (const LayerPart& part : parts) all.push_back(factors_of(*part.layer, part.weight));
  return stack(all);
}

LOWRANK_INLINE DType common_dtype(const std::vector<LayerPart>& parts) {
  std::vector<const StoredTensor*> tensors;
  for (const LayerPart& part : parts) tensors.push_back(&part.layer->a()), tensors.push_back(&part.layer->b());
  return common_dtype(std::span<const StoredTensor* const>(tensors));
}

/// The rule on task vectors with their weights; `voices` are the weights in the election of signs. The tasks are pruned in place.
LOWRANK_INLINE Weight<float> apply_rule(std::vector<Weight<float>>& tasks, std::span<const double> weights, std::span<const double> voices,
                                        const CombineOptions& options, std::uint64_t stream) {
  const CombineRule rule = options.method.rule;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (rule == CombineRule::dare_linear || rule == CombineRule::dare_ties)
      keep_random(tasks[i], options.density, Random(options.seed, stream + i, Role::pruning));
    else if (rule != CombineRule::linear)
      keep_largest(tasks[i], options.density);
  }
  if (rule == CombineRule::ties || rule == CombineRule::dare_ties) return merge_elected(tasks, weights, voices, options.vote);
  Weight<float> sum = static_cast<float>(weights[0]) * tasks[0];
  for (std::size_t i = 1; i < tasks.size(); ++i) sum += static_cast<float>(weights[i]) * tasks[i];
  return sum;
}

/// The rule on the dense updates, one layer at a time, then the best approximation. Holds all updates of the layer in float.
LOWRANK_INLINE FittedUpdate combine_updates(const std::vector<LayerPart>& parts, const CombineOptions& options, const RankChoice& rank,
                                            std::uint64_t stream) {
  if (options.method.rule == CombineRule::linear) return recompress(sum_of(parts), rank);
  std::vector<Weight<float>> tasks;
  std::vector<double> weights;
  for (const LayerPart& part : parts) {
    const Factors update = factors_of(*part.layer);
    const Weight<float> b = (update.scale * update.b.cast<double>()).cast<float>();
    tasks.emplace_back(multiply(DenseSource<float>(b.data(), b.rows(), b.cols()), Activation<float>(update.a)));
    weights.push_back(part.weight);
  }
  const std::vector<double> ones(weights.size(), 1.0);
  const Weight<float> sum = apply_rule(tasks, weights, options.method.form == CombineForm::updates ? weights : ones, options, stream);
  return approximate(sum, rank, options.seed);
}

/// PEFT's rule on A and B apart. Throws ValueError for ranks that differ.
LOWRANK_INLINE ModuleTensors combine_factors(const std::string& path, const std::vector<LayerPart>& parts, const CombineOptions& options,
                                             std::uint64_t stream) {
  std::vector<Weight<float>> a, b;
  std::vector<double> signed_roots, roots;
  for (const LayerPart& part : parts) {
    check<ValueError>(part.layer->rank() == parts.front().layer->rank(), "combine", path, " has rank ", parts.front().layer->rank(),
                      " in one adapter and ", part.layer->rank(),
                      " in another; peft_ methods without _svd need equal ranks, linear does not");
    const double factor = part.weight * part.layer->scale;
    roots.push_back(std::sqrt(std::abs(factor)));
    signed_roots.push_back(factor >= 0 ? roots.back() : -roots.back());
    a.push_back(to_weight(part.layer->a()));
    b.push_back(to_weight(part.layer->b()));
  }
  const std::vector<double> ones(parts.size(), 1.0);
  const Factors mixed{apply_rule(a, signed_roots, ones, options, stream), apply_rule(b, roots, ones, options, stream + parts.size())};
  return to_layer(path, mixed, common_dtype(parts), *parts.front().layer);
}

/// ‖result - Σ wᵢ Dᵢ‖ relative to ‖Σ wᵢ Dᵢ‖, by the factors of the difference.
LOWRANK_INLINE LayerFit fit_to_sum(const ModuleTensors& result, const std::vector<LayerPart>& parts) {
  std::vector<LayerPart> both = parts;
  both.push_back({&result, -1});
  const double norm = product_svd(sum_of(parts)).s.norm(), error = product_svd(sum_of(both)).s.norm();
  return {result.rank(), norm, norm > 0 ? error / norm : 0};
}

struct CombinedLayer {
  ModuleTensors layer;
  LayerFit fit;
};

LOWRANK_INLINE CombinedLayer combine_layer(const std::string& path, const std::vector<LayerPart>& parts, const CombineOptions& options,
                                           const RankChoice& rank, std::uint64_t stream) {
  CombinedLayer result;
  if (options.method.rule == CombineRule::concat) {
    result.layer = to_layer(path, sum_of(parts), common_dtype(parts), *parts.front().layer);
    result.fit = fit_to_sum(result.layer, parts);
  } else if (options.method.form == CombineForm::peft_factors) {
    result.layer = combine_factors(path, parts, options, stream);
    result.fit = fit_to_sum(result.layer, parts);
  } else {
    const FittedUpdate update = combine_updates(parts, options, rank, stream);
    result.layer = to_layer(path, update.factors, common_dtype(parts), *parts.front().layer);
    result.fit = update.fit;
  }
  return result;
}

}  // namespace detail

LOWRANK_INLINE FittedAdapter combine(std::span<const WeightedAdapter> adapters, const CombineOptions& options) {
  detail::check_combinable(adapters);
  detail::check_density("combine", options.density);
  const bool has_no_rank = options.method.rule == CombineRule::concat || options.method.form == CombineForm::peft_factors;
  check<ValueError>(!options.rank || !has_no_rank, "combine",
                    "this method's rank follows from its inputs; leave the rank out, or use linear, or resize the result");
  const auto layers = detail::parts_by_layer(adapters);
  std::vector<const std::pair<const std::string, std::vector<detail::LayerPart>>*> order;
  for (const auto& entry : layers) order.push_back(&entry);
  const RankChoice rank = options.rank.value_or(RankChoice::rank(detail::largest_rank(adapters)));
  std::vector<detail::CombinedLayer> done(order.size());
  parallel_for(static_cast<Index>(order.size()), [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    const std::uint64_t stream = 2 * at * adapters.size();  // of each adapter's A and B another one
    done[at] = detail::combine_layer(order[at]->first, order[at]->second, options, rank, stream);
  });
  FittedAdapter result;
  for (std::size_t i = 0; i < order.size(); ++i) {
    result.fits[order[i]->first] = done[i].fit;
    result.adapter.layers[order[i]->first] = std::move(done[i].layer);
  }
  const bool is_linear = options.method.rule == CombineRule::concat || options.method.rule == CombineRule::linear;
  detail::combine_biases(result.adapter, layers, is_linear);
  detail::combine_saved(result.adapter, adapters);
  detail::combine_configs(result.adapter, adapters);
  return result;
}

LOWRANK_INLINE Adapter to_plain_adapter(const Adapter& initial, const Adapter& trained) {
  for (const auto& [path, layer] : trained.layers)
    check<ValueError>(initial.layers.contains(path), "to_plain_adapter", "the initial adapter has no ", path,
                      "; give the adapter with which this training began");
  for (const auto& [path, layer] : initial.layers)
    check<ValueError>(trained.layers.contains(path), "to_plain_adapter", "the trained adapter has no ", path,
                      "; give the adapter with which this training began");
  Adapter start = initial;
  start.saved.clear();  // full copies are those of the trained one
  const WeightedAdapter both[] = {{&trained, 1}, {&start, -1}};
  return combine(both, {.method = {CombineRule::concat}}).adapter;
}

}  // namespace lowrank::inline LOWRANK_ABI
