#include <transformer/generate.inl>

namespace transformer {

template class Reader<Cpu>;
template Activation<float> read_logits<Cpu>(Transformer&, LoraSet*, std::span<const std::int32_t>);
template Generation generate<Cpu>(Transformer&, LoraSet*, const Tokenizer&, std::span<const std::int32_t>, const GenerateOptions&,
                                  const std::function<void(std::string_view)>&);
template Generation generate<Cpu>(Reader<Cpu>&, const Tokenizer&, std::span<const std::int32_t>, const GenerateOptions&,
                                  const std::function<void(std::string_view)>&);

}  // namespace transformer
