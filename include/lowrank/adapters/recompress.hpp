#pragma once

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/spectrum.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/ops/decompose.hpp>

/// Updates at another rank: the best approximation of a sum of updates, of an adapter, or of the difference of two weights.

namespace lowrank::inline LOWRANK_ABI {

/// How many directions to keep: a rank, or as few as keep a share of the energy Σ sᵢ².
class RankChoice {
 public:
  static RankChoice rank(Index r) {
    check<ValueError>(r > 0, "rank_choice", "rank = ", r, "; it must be at least 1");
    return {r, 0};
  }
  static RankChoice energy(double share) {
    check<ValueError>(share > 0 && share <= 1, "rank_choice", "energy = ", share, "; it must lie in (0, 1], for example 0.95");
    return {0, share};
  }
  bool is_rank() const { return rank_ > 0; }
  Index rank() const { return rank_; }
  double energy() const { return energy_; }
  /// The rank for a matrix with these (leading) singular values and ‖M‖² = total; at least 1.
  Index of(const Eigen::VectorXd& s, double total) const {
    const Index k = is_rank() ? rank_ : rank_for_energy(s, energy_, total);
    return std::clamp<Index>(k, 1, std::max<Index>(1, s.size()));
  }

 private:
  RankChoice(Index rank, double energy) : rank_(rank), energy_(energy) {}
  Index rank_;
  double energy_;
};

/// How well a layer's update was kept.
struct LayerFit {
  Index rank = 0;       ///< that it has now
  double norm = 0;      ///< ‖D‖ of the update D that was asked for
  double residual = 0;  ///< ‖kept - D‖ / ‖D‖; 0 where D is 0
};

/// A best approximation and how good it is.
struct FittedUpdate {
  Svd svd;
  LayerFit fit;
};

/// An adapter and the fit of each of its layers.
struct FittedAdapter {
  Adapter adapter;
  std::map<std::string, LayerFit> fits;
};

namespace detail {

inline FittedUpdate keep_leading(const Svd& svd, const RankChoice& choice, double total) {
  const Index k = choice.of(svd.s, total);
  const double dropped = std::max(0.0, total - svd.s.head(k).squaredNorm());
  return {svd.leading(k), {k, std::sqrt(total), total > 0 ? std::sqrt(dropped / total) : 0}};
}

/// The element type of all of them where it is one that adapters are kept in, else float32.
inline DType common_dtype(std::span<const StoredTensor* const> tensors) {
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

/// A matrix in that element type; of one column as a vector if asked.
inline StoredTensor to_tensor(std::string name, const Eigen::MatrixXd& m, DType dtype, bool as_vector = false) {
  const Weight<float> w = m.cast<float>();
  std::vector<Index> shape{m.rows(), m.cols()};
  if (as_vector) shape.pop_back();
  if (dtype == DType::bf16) return rounded_tensor<bfloat16>(std::move(name), std::move(shape), w);
  if (dtype == DType::f16) return rounded_tensor<half>(std::move(name), std::move(shape), w);
  return rounded_tensor<float>(std::move(name), std::move(shape), w);
}

/// U diag(s) Vᵀ as a layer of scale 1, the singular values shared evenly: B = U √s, A = √s Vᵀ, so that both train at one rate.
inline LoraTensors to_layer(const std::string& path, const Svd& svd, DType dtype, bool is_embedding) {
  const Eigen::VectorXd root = svd.s.cwiseSqrt();
  return {.a = to_tensor(path + ".lora_A.weight", root.asDiagonal() * svd.v.transpose(), dtype),
          .b = to_tensor(path + ".lora_B.weight", svd.u * root.asDiagonal(), dtype),
          .is_embedding = is_embedding};
}

/// Rank and alpha that most layers have; what differs, saving writes as patterns. Fields of the file that the config came from are dropped:
/// the way in which the parts were initialized is no property of the result.
inline void set_config_ranks(Adapter& adapter) {
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

}  // namespace detail

/// The best approximation of B A at that rank, by thin QR of both factors and a small SVD: B [out, R], A [R, in] may be the stacked factors
/// of many updates, [B₁ B₂ …] and [A₁; A₂; …]. Cost: O((out + in) R²); the dense product is never made. Throws ShapeError, ValueError.
inline FittedUpdate recompress(const UpdateFactors& update, const RankChoice& choice) {
  const Svd svd = product_svd(update.b, update.a);
  return detail::keep_leading(svd, choice, svd.s.squaredNorm());
}

namespace detail {
/// The leading part of an SVD of D, its residual measured: ‖D‖² - Σ sᵢ² would be rounding alone where D has that rank.
inline FittedUpdate keep_measured(const Weight<float>& d, const Svd& svd, const RankChoice& choice, double total) {
  FittedUpdate kept = keep_leading(svd, choice, total);
  constexpr Index strip = 128;  // rows at a time: no dense copy in double
  double squares = 0;
  for (Index row = 0; row < d.rows(); row += strip) {
    const Index count = std::min(strip, d.rows() - row);
    const Eigen::MatrixXd left = kept.svd.u.middleRows(row, count) * kept.svd.s.asDiagonal();
    squares += (d.middleRows(row, count).cast<double>() - thin_product(left, kept.svd.v.transpose())).squaredNorm();
  }
  if (total > 0) kept.fit.residual = std::sqrt(squares / total);
  return kept;
}
}  // namespace detail

/// The best approximation of a dense update D [out, in]: exact for small matrices, by sampling for large ones (leading_svd).
inline FittedUpdate approximate(const Weight<float>& d, const RankChoice& choice, std::uint64_t seed = 0) {
  const Index least = std::min(d.rows(), d.cols());
  const double total = d.cast<double>().squaredNorm();
  check<ValueError>(std::isfinite(total), "approximate", "the update [", d.rows(), ", ", d.cols(), "] holds numbers that are not finite");
  if (choice.is_rank()) return detail::keep_measured(d, leading_svd(d, std::min(choice.rank(), least), seed), choice, total);
  for (Index k = std::min<Index>(32, least);; k = std::min(2 * k, least)) {  // until so many directions hold the share
    const Svd svd = leading_svd(d, k, seed);
    if (k == least || svd.s.squaredNorm() >= choice.energy() * total) return detail::keep_measured(d, svd, choice, total);
  }
}

/// The adapter at another rank, each layer the best approximation of its own update; element types are kept, every scale becomes 1.
///
/// Biases stay exact. A DoRA magnitude stays as it is (the residual is then that of s B A), as do saved modules. Throws ValueError.
inline FittedAdapter resize(const Adapter& adapter, const RankChoice& choice) {
  std::vector<std::pair<std::string, const LoraTensors*>> layers;
  for (const auto& [path, layer] : adapter.layers) layers.emplace_back(path, &layer);
  std::vector<FittedUpdate> fitted(layers.size());
  parallel_for(static_cast<Index>(layers.size()), [&](Index i) {
    fitted[static_cast<std::size_t>(i)] = recompress(update_factors(*layers[static_cast<std::size_t>(i)].second), choice);
  });
  FittedAdapter result{adapter, {}};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto& [path, layer] = layers[i];
    const StoredTensor* const both[] = {&layer->a, &layer->b};
    LoraTensors small = detail::to_layer(path, fitted[i].svd, detail::common_dtype(both), layer->is_embedding);
    small.magnitude = layer->magnitude;
    if (layer->bias)  // PEFT scales it as it does B A
      small.bias = detail::to_tensor(path + ".lora_B.bias", layer->scale * to_weight(*layer->bias).transpose().cast<double>(),
                                     detail::common_dtype(std::array<const StoredTensor*, 1>{&*layer->bias}), true);
    result.adapter.layers[path] = std::move(small);
    result.fits[path] = fitted[i].fit;
  }
  detail::set_config_ranks(result.adapter);
  if (adapter.config.use_dora)
    result.adapter.notes.push_back("the lengths of DoRA stay as they are; norms and residuals are those of s B A");
  return result;
}

/// The update that turns one weight [out, in] into another, at a rank or with a share of the energy. Throws ShapeError, ValueError.
inline FittedUpdate extract_update(const Weight<float>& base, const Weight<float>& tuned, const RankChoice& choice) {
  check<ShapeError>(base.rows() == tuned.rows() && base.cols() == tuned.cols(), "extract", "the base weight is [", base.rows(), ", ",
                    base.cols(), "] but the tuned one [", tuned.rows(), ", ", tuned.cols(), "]; both models must be of one architecture");
  return approximate(tuned - base, choice);
}

/// The same as a layer of an adapter, in float32 with scale 1.
inline LoraTensors to_layer(const std::string& path, const FittedUpdate& update) {
  return detail::to_layer(path, update.svd, DType::f32, false);
}

/// An adapter of such layers, its configuration naming each module by its path.
inline FittedAdapter to_adapter(const std::map<std::string, FittedUpdate>& updates) {
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
