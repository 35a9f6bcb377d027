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

Llama random_llama(const LlamaConfig& config, std::uint64_t seed) {
  config.validate();
  Llama model;
  model.config = config;
  std::uint64_t stream = 0;
  const double deviation = 0.02, residual = deviation / std::sqrt(2.0 * static_cast<double>(config.layers));
  const auto matrix = [&](Index out, Index in, double sigma) { return normal_matrix(out, in, sigma, seed, stream++); };
  model.embedding = matrix(config.vocabulary, config.hidden, deviation);
  for (Index i = 0; i < config.layers; ++i) {
    Block block{ones(config.hidden), ones(config.hidden), {}, {}, {}, {}, {}, {}, {}};
    block.query = matrix(config.query_width(), config.hidden, deviation);
    block.key = matrix(config.kv_width(), config.hidden, deviation);
    block.value = matrix(config.kv_width(), config.hidden, deviation);
    block.output = matrix(config.hidden, config.query_width(), residual);
    block.gate = matrix(config.intermediate, config.hidden, deviation);
    block.up = matrix(config.intermediate, config.hidden, deviation);
    block.down = matrix(config.hidden, config.intermediate, residual);
    model.blocks.push_back(std::move(block));
  }
  model.final_norm = ones(config.hidden);
  return model;
}

}  // namespace transformer
