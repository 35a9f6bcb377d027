#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/adapters/combine_extras.inl>
#include <lowrank/core/parallel.hpp>
#include <lowrank/ops/product.hpp>

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

/// Bᵢ side by side and Aᵢ below each other, wᵢ sᵢ inside B: their product is Σ wᵢ Dᵢ.
LOWRANK_INLINE UpdateFactors stack_factors(const std::vector<LayerPart>& parts) {
  Index rank = 0;
  for (const LayerPart& part : parts) rank += part.layer->rank();
  const LoraTensors& first = *parts.front().layer;
  UpdateFactors all{Eigen::MatrixXd(first.out(), rank), Eigen::MatrixXd(rank, first.in())};
  Index at = 0;
  for (const LayerPart& part : parts) {
    const UpdateFactors one = update_factors(*part.layer, part.weight);
    all.b.middleCols(at, one.b.cols()) = one.b;
    all.a.middleRows(at, one.a.rows()) = one.a;
    at += one.a.rows();
  }
  return all;
}

LOWRANK_INLINE DType common_dtype(const std::vector<LayerPart>& parts) {
  std::vector<const StoredTensor*> tensors;
  for (const LayerPart& part : parts) tensors.push_back(&part.layer->a), tensors.push_back(&part.layer->b);
  return common_dtype(std::span<const StoredTensor* const>(tensors));
}

/// The stacked factors as a layer. Where all wᵢ sᵢ agree but for signs, their magnitude is the layer's scale and no number of A or B is
/// rounded; else it is multiplied into B.
LOWRANK_INLINE LoraTensors concat_layer(const std::string& path, const std::vector<LayerPart>& parts) {
  const auto factor = [](const LayerPart& part) { return part.weight * part.layer->scale; };
  const double common = std::abs(factor(parts.front()));
  const bool agree = common > 0 && std::all_of(parts.begin(), parts.end(), [&](const auto& p) { return std::abs(factor(p)) == common; });
  UpdateFactors all = stack_factors(parts);
  if (agree) {
    Index at = 0;
    for (const LayerPart& part : parts) {  // again, from the bytes
      const Index r = part.layer->rank();
      all.b.middleCols(at, r) = (factor(part) < 0 ? -1.0 : 1.0) * to_weight(part.layer->b).cast<double>();
      at += r;
    }
  }
  const DType dtype = common_dtype(parts);
  return {.a = to_tensor(path + ".lora_A.weight", all.a, dtype),
          .b = to_tensor(path + ".lora_B.weight", all.b, dtype),
          .scale = agree ? common : 1,
          .is_embedding = parts.front().layer->is_embedding};
}

/// The rule on task vectors with their weights; `voices` are the weights in the election of signs. The tasks are pruned in place.
LOWRANK_INLINE Weight<float> apply_rule(std::vector<Weight<float>>& tasks, std::span<const double> weights, std::span<const double> voices,
                                        const CombineOptions& options, std::uint64_t stream) {
  const CombineRule rule = options.method.rule;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (rule == CombineRule::dare_linear || rule == CombineRule::dare_ties)
      keep_random(tasks[i], options.density, Random(options.seed, stream + i));
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
  if (options.method.rule == CombineRule::linear) return recompress(stack_factors(parts), rank);
  std::vector<Weight<float>> tasks;
  std::vector<double> weights;
  for (const LayerPart& part : parts) {
    const UpdateFactors update = update_factors(*part.layer);
    const Weight<float> b = update.b.cast<float>();
    tasks.push_back(multiply(DenseSource<float>(b.data(), b.rows(), b.cols()), Activation<float>(update.a.cast<float>())));
    weights.push_back(part.weight);
  }
  const std::vector<double> ones(weights.size(), 1.0);
  const Weight<float> sum = apply_rule(tasks, weights, options.method.form == CombineForm::updates ? weights : ones, options, stream);
  return approximate(sum, rank, options.seed);
}

/// PEFT's rule on A and B apart. Throws ValueError for ranks that differ.
LOWRANK_INLINE LoraTensors combine_factors(const std::string& path, const std::vector<LayerPart>& parts, const CombineOptions& options,
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
    a.push_back(to_weight(part.layer->a));
    b.push_back(to_weight(part.layer->b));
  }
  const std::vector<double> ones(parts.size(), 1.0);
  const DType dtype = common_dtype(parts);
  const Weight<float> mixed_a = apply_rule(a, signed_roots, ones, options, stream);
  const Weight<float> mixed_b = apply_rule(b, roots, ones, options, stream + parts.size());
  return {.a = to_tensor(path + ".lora_A.weight", mixed_a.cast<double>(), dtype),
          .b = to_tensor(path + ".lora_B.weight", mixed_b.cast<double>(), dtype),
          .is_embedding = parts.front().layer->is_embedding};
}

/// ‖result - Σ wᵢ Dᵢ‖ relative to ‖Σ wᵢ Dᵢ‖, by the factors of the difference.
LOWRANK_INLINE LayerFit fit_to_sum(const LoraTensors& result, const std::vector<LayerPart>& parts) {
  std::vector<LayerPart> both = parts;
  both.push_back({&result, -1});
  const UpdateFactors sum = stack_factors(parts), difference = stack_factors(both);
  const double norm = product_svd(sum.b, sum.a).s.norm(), error = product_svd(difference.b, difference.a).s.norm();
  return {result.rank(), norm, norm > 0 ? error / norm : 0};
}

struct CombinedLayer {
  LoraTensors layer;
  LayerFit fit;
};

LOWRANK_INLINE CombinedLayer combine_layer(const std::string& path, const std::vector<LayerPart>& parts, const CombineOptions& options,
                                           const RankChoice& rank, std::uint64_t stream) {
  CombinedLayer result;
  if (options.method.rule == CombineRule::concat) {
    result.layer = concat_layer(path, parts);
    result.fit = fit_to_sum(result.layer, parts);
  } else if (options.method.form == CombineForm::peft_factors) {
    result.layer = combine_factors(path, parts, options, stream);
    result.fit = fit_to_sum(result.layer, parts);
  } else {
    const FittedUpdate update = combine_updates(parts, options, rank, stream);
    result.layer = to_layer(path, update.svd, common_dtype(parts), parts.front().layer->is_embedding);
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
