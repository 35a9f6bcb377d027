#include <transformer/model.inl>

namespace transformer {

void Transformer::set_trainable(bool trainable) {
  for (Index s = 0; s < slots(); ++s) layer(s).base.set_trainable(trainable);
  embedding.base.set_trainable(trainable);
  for (Block& block : blocks)
    for (Parameter<float>& norm : block.norms) norm.trainable = trainable;
  final_norm.trainable = trainable;
}

Index Transformer::parameter_count() const {
  Index count = 0;
  visit_norms([&](const Parameter<float>& norm) { count += norm.size(); });
  visit_matrices([&](const AdaptedLinear& w) { count += w.in_features() * w.out_features() + w.base.bias().size(); });
  return count;
}

std::size_t Transformer::bytes() const {
  std::size_t bytes = 0;
  visit_norms([&](const Parameter<float>& norm) { bytes += static_cast<std::size_t>(norm.size()) * sizeof(float); });
  visit_matrices([&](const AdaptedLinear& w) { bytes += w.base.weight_bytes(); });
  return bytes;
}

std::size_t Transformer::kept_bytes(Index tokens) const {
  const Index word = layer(0).base.compute() == lowrank::Compute::bf16 ? 2 : 4;  // of a product's result; the residual stream stays in fp32
  const Index products = 2 * config.query_width() + 2 * config.kv_width() + 2 * config.intermediate;
  return static_cast<std::size_t>(config.layers * tokens * (2 * config.hidden * 4 + products * word));
}

template Var<float> Transformer::hidden(std::span<const std::int32_t>, const Sequences&, Pass<Cpu>);
template Var<float> Transformer::logits(std::span<const std::int32_t>, const Sequences&, Pass<Cpu>);
template Var<float> Transformer::next_logits(std::span<const std::int32_t>, Pass<Cpu>);
template Var<float> Transformer::loss(std::span<const std::int32_t>, std::span<const std::int32_t>, const Sequences&, Pass<Cpu>);

}  // namespace transformer
