#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE RankChoice RankChoice::rank(Index r) {
  check<ValueError>(r > 0, "rank_choice", "rank = ", r, "; it must be at least 1");
  return {r, 0};
}

LOWRANK_INLINE RankChoice RankChoice::energy(double share) {
  check<ValueError>(is_finite(share) && share > 0 && share <= 1, "rank_choice", "energy = ", share,
                    "; it must lie in (0, 1], for example 0.95");
  return {0, share};
}

LOWRANK_INLINE Index RankChoice::of(const Eigen::VectorXd& s, double total) const {
  const Index k = is_rank() ? rank_ : rank_for_energy(s, energy_, total);
  return std::clamp<Index>(k, 1, std::max<Index>(1, s.size()));
}

namespace detail {

LOWRANK_INLINE DType common_dtype(std::span<const StoredTensor* const> tensors) {
  const DType first = tensors.front()->dtype;
  const bool agree = std::all_of(tensors.begin(), tensors.end(), [&](const StoredTensor* t) { return t->dtype == first; });
  return agree && (first == DType::bf16 || first == DType::f16) ? first : DType::f32;
}

template <class T>
StoredTensor rounded_tensor(std::string name, std::vector<Index> shape, const Weight<float>& m) {
  std::vector<T> values(static_cast<std::size_t>(m.size()));
  std::transform(m.data(), m.data() + m.size(), values.begin(), [](float x) { return T(x); });
  return make_tensor<T>(std::move(name), std::move(shape), values);
}

LOWRANK_INLINE StoredTensor to_tensor(std::string name, const Weight<float>& m, DType dtype, bool as_vector) {
  std::vector<Index> shape{m.rows(), m.cols()};
  if (as_vector) shape.pop_back();
  if (dtype == DType::bf16) return rounded_tensor<BFloat16>(std::move(name), std::move(shape), m);
  if (dtype == DType::f16) return rounded_tensor<Half>(std::move(name), std::move(shape), m);
  return rounded_tensor<float>(std::move(name), std::move(shape), m);
}

LOWRANK_INLINE ModuleTensors to_layer(const std::string& path, const Factors& factors, DType dtype, const ModuleTensors& like) {
  return with_kernel(lora_tensors(to_tensor(path + ".lora_A.weight", factors.a, dtype),
                                  to_tensor(path + ".lora_B.weight", factors.b, dtype), factors.scale, like.is_embedding),
                     like.kernel());
}

LOWRANK_INLINE void set_config_ranks(Adapter& adapter) {
  std::map<std::pair<Index, double>, int> votes;
  for (const auto& [path, layer] : adapter.layers) ++votes[{layer.rank(), layer.scale}];
  const auto most = std::max_element(votes.begin(), votes.end(), [](const auto& x, const auto& y) { return x.second < y.second; });
  LoraConfig& config = adapter.config;
  if (most != votes.end()) {
    config.rank = most->first.first;
    config.alpha = most->first.second * static_cast<double>(config.rank);
  }
  config.use_rslora = false;
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  config.json.clear();
}

LOWRANK_INLINE Weight<float> through_middle(const Plan<float>& plan) {
  const auto &a = plan.a, &middle = plan.middle;
  if (middle.empty() || a.empty()) return a.matrix();
  if (middle.cols == 1 && middle.rows == a.rows) return middle.matrix().col(0).asDiagonal() * a.matrix();
  return multiply(middle.source(), Activation<float>(a.matrix()));
}

}  // namespace detail

LOWRANK_INLINE FittedUpdate recompress(const Factors& update, const RankChoice& choice) {
  const Svd svd = product_svd(update);
  const double total = svd.s.squaredNorm();
  const Index k = choice.of(svd.s, total);
  const double dropped = std::max(0.0, total - svd.s.head(k).squaredNorm());
  return {shared_evenly(svd.leading(k)), {k, std::sqrt(total), total > 0 ? std::sqrt(dropped / total) : 0}};
}

namespace detail {

/// The leading part of an SVD of D, its residual measured: ‖D‖² - Σ sᵢ² would be rounding alone where D has that rank.
LOWRANK_INLINE FittedUpdate keep_measured(const Weight<float>& d, const Svd& svd, const RankChoice& choice, double total) {
  const Svd kept = svd.leading(choice.of(svd.s, total));
  constexpr Index strip = 128;  // rows at a time: no dense copy in double
  double squares = 0;
  for (Index row = 0; row < d.rows(); row += strip) {
    const Index count = std::min(strip, d.rows() - row);
    const Eigen::MatrixXd left = kept.u.middleRows(row, count) * kept.s.asDiagonal();
    squares += (d.middleRows(row, count).cast<double>() - thin_product(left, kept.v.transpose())).squaredNorm();
  }
  return {shared_evenly(kept), {kept.s.size(), std::sqrt(total), total > 0 ? std::sqrt(squares / total) : 0}};
}

}  // namespace detail

LOWRANK_INLINE FittedUpdate approximate(const Weight<float>& d, const RankChoice& choice, std::uint64_t seed) {
  const Index least = std::min(d.rows(), d.cols());
  const double total = d.cast<double>().squaredNorm();
  check<ValueError>(is_finite(total), "approximate", "the update [", d.rows(), ", ", d.cols(), "] holds numbers that are not finite");
  if (choice.is_rank()) return detail::keep_measured(d, leading_svd(d, std::min(choice.rank(), least), seed), choice, total);
  for (Index k = std::min<Index>(32, least);; k = std::min(2 * k, least)) {  // until so many directions hold the share
    const Svd svd = leading_svd(d, k, seed);
    if (k == least || svd.s.squaredNorm() >= choice.energy() * total) return detail::keep_measured(d, svd, choice, total);
  }
}

LOWRANK_INLINE FittedAdapter resize(const Adapter& adapter, const RankChoice& choice) {
  check<ValueError>(adapter.config.peft_type == "LORA", "resize", "the adapter is of type ", adapter.config.peft_type,
                    ", not LORA; bind it to its base and write it as LoRA: to_lora(set, layers, choice)");
  std::vector<std::pair<std::string, const ModuleTensors*>> layers;
  for (const auto& [path, layer] : adapter.layers) layers.emplace_back(path, &layer);
  std::vector<FittedUpdate> fitted(layers.size());
  parallel_for(static_cast<Index>(layers.size()), [&](Index i) {
    fitted[static_cast<std::size_t>(i)] = recompress(factors_of(*layers[static_cast<std::size_t>(i)].second), choice);
  });
  FittedAdapter result{adapter, {}};
  bool is_sum = true;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto& [path, layer] = layers[i];
    const StoredTensor* const both[] = {&layer->a(), &layer->b()};
    ModuleTensors small = detail::to_layer(path, fitted[i].factors, detail::common_dtype(both), *layer);
    small.tensors.insert(layer->tensors.begin(), layer->tensors.end());  // what is neither A nor B
    if (const StoredTensor* bias = layer->bias())                        // PEFT scales it as it does B A
      small.tensors[std::string(ModuleTensors::bias_name)] =
          detail::to_tensor(bias->name, (layer->scale * to_weight(*bias).transpose().cast<double>()).cast<float>(),
                            detail::common_dtype(std::array{bias}), true);
    is_sum = is_sum && !layer->beyond_sum();
    result.adapter.layers[path] = std::move(small);
    result.fits[path] = fitted[i].fit;
  }
  detail::set_config_ranks(result.adapter);
  if (!is_sum) result.adapter.notes.emplace_back("what is neither A nor B stays as it is; norms and residuals are those of s B A");
  return result;
}

LOWRANK_INLINE FittedUpdate extract_update(const Weight<float>& base, const Weight<float>& tuned, const RankChoice& choice) {
  check<ShapeError>(base.rows() == tuned.rows() && base.cols() == tuned.cols(), "extract", "the base weight is [", base.rows(), ", ",
                    base.cols(), "] but the tuned one [", tuned.rows(), ", ", tuned.cols(), "]; both models must be of one architecture");
  return approximate(tuned - base, choice);
}

LOWRANK_INLINE FittedUpdate extract_update(const Plan<float>& plan, const RankChoice& choice) {
  check<ValueError>(plan.is_additive() && (plan.has_factors() || plan.has_delta()), "extract",
                    "the update is no sum W + s B A or W + s Δ; merge it into the base, and extract from the merged weight");
  if (!plan.has_delta()) return recompress({detail::through_middle(plan), plan.b.matrix(), plan.scale}, choice);
  Weight<float> sum(plan.delta.rows(), plan.delta.cols());
  plan.delta.decode(0, sum.rows(), 0, sum.cols(), sum.data(), sum.cols());
  if (plan.has_factors()) sum += Weight<float>(multiply(plan.b.source(), Activation<float>(detail::through_middle(plan))));
  return approximate(plan.scale * sum, choice);
}

LOWRANK_INLINE ModuleTensors to_layer(const std::string& path, const FittedUpdate& update) {
  return detail::to_layer(path, update.factors, DType::f32, {});
}

LOWRANK_INLINE FittedAdapter to_adapter(const std::map<std::string, FittedUpdate>& updates) {
  FittedAdapter result;
  std::vector<std::string> paths;
  for (const auto& [path, update] : updates) {
    result.adapter.layers[path] = to_layer(path, update);
    result.fits[path] = update.fit;
    paths.push_back(path);
  }
  result.adapter.config.target_modules = std::move(paths);
  detail::set_config_ranks(result.adapter);
  return result;
}

}  // namespace lowrank::inline LOWRANK_ABI
