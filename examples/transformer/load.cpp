#include <transformer/load.hpp>

#include <algorithm>
#include <bit>
#include <cmath>

#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/matrix.hpp>

#include <transformer/load_folder.hpp>
#include <transformer/load_gguf.hpp>

namespace transformer {

Base parse_base(const std::string& name) {
  if (name == "nf4") return Base::nf4;
  if (name == "fp32") return Base::fp32;
  if (name == "bf16") return Base::bf16;
  lowrank::check<lowrank::ValueError>(name == "native", "base", name, " is not known; give native, nf4, fp32 or bf16");
  return Base::native;
}

lowrank::Weight<float> dense_weight(const AdaptedLinear& layer) {
  lowrank::Weight<float> w(layer.out_features(), layer.in_features());
  layer.base.visit([&](const auto& held) { held.source().decode(0, w.rows(), 0, w.cols(), w.data(), w.cols()); });
  return w;
}

std::uint64_t fingerprint(const Transformer& model) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](const float* values, Index count) {
    for (Index i = 0; i < count; ++i) hash = (hash ^ std::bit_cast<std::uint32_t>(values[i])) * 0x100000001b3u;
  };
  model.visit_matrices([&](const AdaptedLinear& layer) {
    const lowrank::Weight<float> w = dense_weight(layer);
    add(w.data(), w.size());
  });
  model.visit_norms([&](const Parameter<float>& norm) { add(norm.value.data(), norm.size()); });
  return hash;
}

std::string not_finite_reason(const Transformer& model, const LoraSet* lora) {
  const auto found = [](const std::string& name) { return "; " + name + " holds numbers that are not finite"; };
  for (Index s = 0; lora && s < model.slots(); ++s) {
    lowrank::AnyUpdate update = lora->at(s) ? *lora->at(s) : lowrank::AnyUpdate();
    bool finite = !update.lora() || std::isfinite(update.lora()->scale);
    if (update) update.visit_parameters([&](const Parameter<float>& p) { finite = finite && p.value.allFinite(); });
    if (!finite) return found("the update of " + model.config.path(s)) + ": use another adapter, or train with a lower --learning-rate";
  }
  if (!dense_weight(model.embedding).allFinite()) return found("the embedding table") + "; the model's file is damaged";
  for (Index s = 0; s < model.slots(); ++s)
    if (!dense_weight(model.layer(s)).allFinite()) return found(model.config.path(s)) + "; the model's file is damaged";
  return std::string("; every weight is finite, so sums overflow: the model's file is damaged") +
         (lora ? ", or the update is too large: lower the adapter's scale or --learning-rate" : "");
}

AdaptedLinear converted(const AdaptedLinear& layer, Base base) {
  using namespace lowrank;
  if (base == Base::native) return layer;
  const Weight<float> dense = dense_weight(layer);  // [out, in]
  Column<float> bias = layer.base.bias().value;
  if (base == Base::nf4) return AnyLinear(AnyMatrix(quantize<Nf4<64>>(dense)), std::move(bias));
  if (base == Base::bf16) {
    auto bytes = Buffer::allocate(static_cast<std::size_t>(dense.size()) * sizeof(BFloat16));
    std::transform(dense.data(), dense.data() + dense.size(), bytes.mutable_as<BFloat16>(), [](float x) { return BFloat16(x); });
    return AnyLinear(AnyMatrix(StoredMatrix<BFloat16>(dense.rows(), dense.cols(), std::move(bytes))), std::move(bias));
  }
  AnyLinear full(Linear<float>(dense, std::move(bias)));
  full.set_trainable(false);
  return full;
}

void convert_base(Transformer& model, Base base) {
  if (base == Base::native) return;
  for (Index s = 0; s < model.head_slot(); ++s) model.layer(s) = converted(model.layer(s), base);
  if (base == Base::nf4) return;
  model.embedding = converted(model.embedding, base);
  if (model.separate_head) *model.separate_head = converted(*model.separate_head, base);
}

Transformer load_model(const std::filesystem::path& path, Base base) {
  Transformer model = std::filesystem::is_directory(path) ? load_folder(path) : load_gguf(path);
  convert_base(model, base);
  return model;
}

}  // namespace transformer
