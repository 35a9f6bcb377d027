#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include <transformer/load_folder.hpp>
#include <transformer/load_gguf.hpp>
#include <transformer/model.hpp>

namespace transformer {

/// In what format the frozen base is kept: as the file has it, or converted while it is read.
enum class Base { native, nf4, fp32, bf16 };

inline Base parse_base(const std::string& name) {
  if (name == "nf4") return Base::nf4;
  if (name == "fp32") return Base::fp32;
  if (name == "bf16") return Base::bf16;
  lowrank::check<lowrank::ValueError>(name == "native", "base", name, " is not known; give native, nf4, fp32 or bf16");
  return Base::native;
}

/// W [out, in] of a layer as numbers: a dense copy.
inline lowrank::Weight<float> dense_weight(const AdaptedLinear& layer) {
  lowrank::Weight<float> w(layer.out_features(), layer.in_features());
  layer.base.visit([&](const auto& held) { held.source().decode(0, w.rows(), 0, w.cols(), w.data(), w.cols()); });
  return w;
}

/// A layer's weight in another format, its bias kept. One dense copy of this one weight exists meanwhile.
inline AdaptedLinear converted(const AdaptedLinear& layer, Base base) {
  if (base == Base::native) return layer;
  const lowrank::Weight<float> dense = dense_weight(layer);  // [out, in]
  lowrank::Vector<float> bias = layer.base.bias().value;
  if (base == Base::nf4) return AdaptedLinear(lowrank::QuantizedLinear<lowrank::Nf4<64>>(lowrank::quantize<lowrank::Nf4<64>>(dense), std::move(bias)));
  if (base == Base::bf16) {
    auto bytes = lowrank::Buffer::allocate(static_cast<std::size_t>(dense.size()) * sizeof(lowrank::bfloat16));
    std::transform(dense.data(), dense.data() + dense.size(), bytes.mutable_as<lowrank::bfloat16>(), [](float x) { return lowrank::bfloat16(x); });
    return AdaptedLinear(lowrank::FrozenLinear<lowrank::bfloat16>({dense.rows(), dense.cols(), std::move(bytes)}, std::move(bias)));
  }
  AdaptedLinear full{lowrank::Linear<float>(dense, std::move(bias))};
  full.set_trainable(false);
  return full;
}

/// Converts all linear layers of the blocks; embedding and head follow only for fp32 and bf16, as QLoRA quantizes neither.
inline void convert_base(Llama& model, Base base) {
  if (base == Base::native) return;
  for (Index s = 0; s < model.head_slot(); ++s) model.layer(s) = converted(model.layer(s), base);
  if (base == Base::nf4) return;
  model.embedding = converted(model.embedding, base);
  if (model.separate_head) *model.separate_head = converted(*model.separate_head, base);
}

/// Opens a .gguf file or a Hugging Face folder, its weights mapped and frozen. Throws IoError or FormatError.
inline Llama load_model(const std::filesystem::path& path, Base base = Base::native) {
  Llama model = std::filesystem::is_directory(path) ? load_folder(path) : load_gguf(path);
  convert_base(model, base);
  return model;
}

}  // namespace transformer
