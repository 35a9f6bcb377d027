#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <transformer/model.hpp>
#include <transformer/sampler.hpp>
#include <transformer/tokenizer.hpp>

namespace transformer {

struct GenerateOptions {
  Index tokens = 128;  ///< at most so many
  SamplerOptions sampler = {};
  bool stop_at_end = true;  ///< stop on end of text; benchmarks go on
  CachePrecision cache = {};
  std::function<bool()> is_stopped = {};  ///< asked before each token: whether to end here
};

struct Generation {
  std::vector<std::int32_t> ids;  ///< without the end token
  std::string text;
  Index prompt_tokens = 0;
  double seconds = 0;  ///< of the tokens after the first, that is without reading the prompt
};

/// Reads one sequence part by part; what was read stays in a cache on the device. A text that passes the length up to which a longrope
/// model turns by its short factors is read again from its beginning, once.
template <class Device = Cpu>
class Reader {
 public:
  /// precision: of the cache; a GPU's is fp32.
  Reader(Transformer& model, LoraSet* lora, CachePrecision precision = {});
  ~Reader();

  /// Logits [vocabulary, 1] that follow the last of the ids, in host memory.
  Activation<float> operator()(std::span<const std::int32_t> ids);
  /// Tokens read so far.
  Index length() const;
  /// Forgets all tokens but the first; at most length().
  void rewind(Index tokens);

  Transformer& model() const { return model_; }
  LoraSet* lora() const { return lora_; }

 private:
  Transformer& model_;
  LoraSet* lora_;
  std::unique_ptr<Cache<Device>> cache_;
  std::vector<std::int32_t> ids_;
  Index turned_for_ = 0;  // length of the text for which the cached keys turned
};

/// Logits [vocabulary, T] of every token of one sequence, in host memory.
template <class Device = Cpu>
Activation<float> read_logits(Transformer& model, LoraSet* lora, std::span<const std::int32_t> ids);

/// Continues a prompt token by token; show gets the text as it becomes whole characters.
///
/// Stops after options.tokens, at an end-of-text token, or when the context is full. Throws ValueError for an empty prompt or one that
/// leaves no room in the context.
template <class Device = Cpu>
Generation generate(Transformer& model, LoraSet* lora, const Tokenizer& tokenizer, std::span<const std::int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(std::string_view)>& show = {});

/// The same after what a reader has read: of `prompt` only that is read. The last new token may not have been read; see length().
template <class Device>
Generation generate(Reader<Device>& read, const Tokenizer& tokenizer, std::span<const std::int32_t> prompt, const GenerateOptions& options,
                    const std::function<void(std::string_view)>& show = {});

}  // namespace transformer
