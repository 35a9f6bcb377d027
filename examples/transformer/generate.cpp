#include <transformer/generate.hpp>

#include <chrono>

#include <transformer/load.hpp>

namespace transformer {

template <class Device>
Generation generate(Llama& model, LoraSet* lora, const Tokenizer& tokenizer, std::span<const std::int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(std::string_view)>& show) {
  lowrank::check<lowrank::ValueError>(!prompt.empty(), "generate", "the prompt holds no token; give at least one character");
  lowrank::check<lowrank::ValueError>(static_cast<Index>(prompt.size()) < model.config.context, "generate", "the prompt has ",
                                      prompt.size(), " tokens but the context holds ", model.config.context,
                                      " and one must be free; shorten the prompt");
  Sampler sample(options.sampler);
  StreamDecoder decoder(tokenizer);
  Cache<Device> cache;
  Generation result{{}, {}, static_cast<Index>(prompt.size()), 0};
  const auto emit = [&](std::string_view piece) {
    result.text += piece;
    if (show && !piece.empty()) show(piece);
  };

  const auto next = [&](std::span<const std::int32_t> ids) {
    Activation<float> logits = to_host(model.next_logits<Device>(ids, {.lora = lora, .cache = &cache}).value());
    if (!logits.allFinite()) lowrank::fail<lowrank::ValueError>("generate", "the logits are not finite", not_finite_reason(model, lora));
    return logits;
  };
  Activation<float> logits = next(prompt);
  const auto start = std::chrono::steady_clock::now();
  while (static_cast<Index>(result.ids.size()) < options.tokens) {
    const std::int32_t id = sample(logits.col(0));
    if (options.stop_at_end && tokenizer.is_eos(id)) break;
    result.ids.push_back(id);
    emit(decoder.push(id));
    const bool more = static_cast<Index>(result.ids.size()) < options.tokens && cache.length < model.config.context;
    if (!more) break;
    logits = next({&id, 1});
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  emit(decoder.finish());
  return result;
}

template Generation generate<Cpu>(Llama&, LoraSet*, const Tokenizer&, std::span<const std::int32_t>, const GenerateOptions&,
                                  const std::function<void(std::string_view)>&);
template Generation generate<Cuda>(Llama&, LoraSet*, const Tokenizer&, std::span<const std::int32_t>, const GenerateOptions&,
                                   const std::function<void(std::string_view)>&);

}  // namespace transformer
