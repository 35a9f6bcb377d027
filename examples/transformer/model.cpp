#include <transformer/model.inl>

namespace transformer {

std::vector<lowrank::NamedLayer> Llama::named_layers() const {
  std::vector<lowrank::NamedLayer> named;
  for (Index s = 0; s < slots(); ++s) named.push_back({slot_path(config, s), &layer(s)});
  named.push_back({"model.embed_tokens", &embedding, true});
  return named;
}

void Llama::set_trainable(bool trainable) {
  for (Index s = 0; s < slots(); ++s) layer(s).base.set_trainable(trainable);
  embedding.base.set_trainable(trainable);
  for (Block& block : blocks) block.attention_norm.trainable = block.mlp_norm.trainable = trainable;
  final_norm.trainable = trainable;
}

Index Llama::parameter_count() const {
  Index count = config.hidden * (2 * config.layers + 1);
  visit_matrices([&](const AdaptedLinear& w) { count += w.in_features() * w.out_features() + w.base.bias().size(); });
  return count;
}

std::size_t Llama::bytes() const {
  std::size_t bytes = static_cast<std::size_t>(config.hidden * (2 * config.layers + 1)) * sizeof(float);
  visit_matrices([&](const AdaptedLinear& w) { bytes += w.base.weight_bytes(); });
  return bytes;
}

std::size_t Llama::kept_bytes(Index tokens) const {
  const Index word = layer(0).base.compute() == lowrank::Compute::bf16 ? 2 : 4;  // of a product's result; the residual stream stays in fp32
  const Index products = 2 * config.query_width() + 2 * config.kv_width() + 2 * config.intermediate;
  return static_cast<std::size_t>(config.layers * tokens * (2 * config.hidden * 4 + products * word));
}

template Var<float> Llama::hidden(std::span<const std::int32_t>, Index, Pass<Cpu>);
template Var<float> Llama::logits(std::span<const std::int32_t>, Index, Pass<Cpu>);
template Var<float> Llama::next_logits(std::span<const std::int32_t>, Pass<Cpu>);
template Var<float> Llama::loss(std::span<const std::int32_t>, std::span<const std::int32_t>, Index, Pass<Cpu>);

}  // namespace transformer
