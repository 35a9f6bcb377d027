#pragma once

#include <chrono>
#include <type_traits>

#include <transformer/generate.hpp>
#include <transformer/load.hpp>

namespace transformer {

template <class Device>
Reader<Device>::Reader(Transformer& model, LoraSet* lora, CachePrecision precision)
    : model_(model), lora_(lora), cache_(std::make_unique<Cache<Device>>()) {
  if constexpr (std::is_same_v<Device, Cpu>)
    cache_->precision = precision;
  else
    lowrank::check<lowrank::ValueError>(precision != lowrank::CachePrecision::bf16, "reader", "a GPU's cache is fp32; ask for no other");
}

template <class Device>
Reader<Device>::~Reader() = default;

template <class Device>
Activation<float> Reader<Device>::operator()(std::span<const std::int32_t> ids) {
  ids_.resize(static_cast<std::size_t>(length()));
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  const auto whole = static_cast<Index>(ids_.size());
  const bool again = model_.config.turns_anew(turned_for_, whole);
  if (again) cache_->length = 0;
  turned_for_ = whole;
  return to_host(
      model_.next_logits<Device>(again ? std::span<const std::int32_t>(ids_) : ids, {.lora = lora_, .cache = cache_.get()}).value());
}

template <class Device>
Index Reader<Device>::length() const {
  return cache_->length;
}

template <class Device>
void Reader<Device>::rewind(Index tokens) {
  lowrank::check<lowrank::ValueError>(0 <= tokens && tokens <= length(), "reader", "to keep ", tokens, " tokens of ", length(),
                                      "; keep at most as many as were read");
  cache_->length = tokens;
}

template <class Device>
Activation<float> read_logits(Transformer& model, LoraSet* lora, std::span<const std::int32_t> ids) {
  return to_host(model.logits<Device>(ids, 1, {.lora = lora}).value());
}

template <class Device>
Generation generate(Transformer& model, LoraSet* lora, const Tokenizer& tokenizer, std::span<const std::int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(std::string_view)>& show) {
  Reader<Device> read(model, lora, options.cache);
  return generate(read, tokenizer, prompt, options, show);
}

template <class Device>
Generation generate(Reader<Device>& read, const Tokenizer& tokenizer, std::span<const std::int32_t> prompt, const GenerateOptions& options,
                    const std::function<void(std::string_view)>& show) {
  const Index context = read.model().config.context, length = read.length() + static_cast<Index>(prompt.size());
  lowrank::check<lowrank::ValueError>(!prompt.empty(), "generate", "the prompt holds no token; give at least one character");
  lowrank::check<lowrank::ValueError>(length < context, "generate", "the prompt has ", length, " tokens but the context holds ", context,
                                      " and one must be free; shorten the prompt");
  Sampler sample(options.sampler);
  StreamDecoder decoder(tokenizer);
  Generation result{{}, {}, static_cast<Index>(prompt.size()), 0};
  const auto emit = [&](std::string_view piece) {
    result.text += piece;
    if (show && !piece.empty()) show(piece);
  };

  const auto next = [&](std::span<const std::int32_t> ids) {
    Activation<float> logits = read(ids);
    if (!logits.allFinite())
      lowrank::fail<lowrank::ValueError>("generate", "the logits are not finite", not_finite_reason(read.model(), read.lora()));
    return logits;
  };
  Activation<float> logits = next(prompt);
  const auto start = std::chrono::steady_clock::now();
  while (static_cast<Index>(result.ids.size()) < options.tokens && !(options.is_stopped && options.is_stopped())) {
    const std::int32_t id = sample(logits.col(0));
    if (options.stop_at_end && tokenizer.is_eos(id)) break;
    result.ids.push_back(id);
    emit(decoder.push(id));
    const bool more = static_cast<Index>(result.ids.size()) < options.tokens && read.length() < context;
    if (!more) break;
    logits = next({&id, 1});
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  emit(decoder.finish());
  return result;
}

}  // namespace transformer
