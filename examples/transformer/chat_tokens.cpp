#include <transformer/chat_tokens.hpp>

namespace transformer {

ChatOptions chat_options(const Tokenizer& tokenizer) {
  ChatOptions options;
  const std::vector<std::int32_t> first = tokenizer.encode("", TextPart::prompt);
  if (tokenizer.bos())
    options.bos_token = tokenizer.token_text(*tokenizer.bos());
  else if (!first.empty())
    options.bos_token = tokenizer.token_text(first.front());
  if (!tokenizer.eos().empty()) options.eos_token = tokenizer.token_text(tokenizer.eos().front());
  options.control_tokens = tokenizer.special_tokens();
  return options;
}

Encoded encode_chat(const Tokenizer& tokenizer, const Rendered& rendered) {
  return tokenizer.encode_text(rendered.text, {TextPart::prompt, SpelledTokens::tokens, rendered.assistant, rendered.spelled});
}

}  // namespace transformer
