#include <transformer/initialize.hpp>

#include <cmath>
#include <utility>

#include <lowrank/update/init.hpp>

namespace transformer {

namespace {

AdaptedLinear normal_matrix(Index out, Index in, double deviation, std::uint64_t seed, std::uint64_t stream) {
  lowrank::Weight<float> w(out, in);
  fill_normal(w, deviation, lowrank::Random(seed, stream));
  return AdaptedLinear(lowrank::Linear<float>(std::move(w)));
}

Parameter<float> ones(Index size) {
  Parameter<float> weight;
  weight.value = lowrank::Weight<float>::Ones(size, 1);
  return weight;
}

}  // namespace

Transformer random_model(const ModelConfig& config, std::uint64_t seed) {
  config.validate();
  Transformer model;
  model.config = config;
  std::uint64_t stream = 0;
  const double deviation = 0.02, residual = deviation / std::sqrt(2.0 * static_cast<double>(config.layers));
  const auto matrix = [&](Index out, Index in, double sigma) { return normal_matrix(out, in, sigma, seed, stream++); };
  model.embedding = matrix(config.vocabulary, config.hidden, deviation);
  for (Index i = 0; i < config.layers; ++i) {
    Block block;
    for (const NormPlace place : all_norm_places)
      if (config.has(place)) block.norm(place) = ones(config.norm_size(place));
    for (const Projection p : config.projections()) {
      const bool ends_part = p == Projection::output || p == Projection::down;
      block.maps.push_back(matrix(config.out_features(p), config.in_features(p), ends_part ? residual : deviation));
    }
    model.blocks.push_back(std::move(block));
  }
  model.final_norm = ones(config.hidden);
  return model;
}

}  // namespace transformer
