#pragma once

#include <transformer/chat_template.hpp>
#include <transformer/tokenizer.hpp>

/// From a rendered conversation to tokens.

namespace transformer {

/// What a tokenizer knows of a rendering's options: its first and end tokens, and the special ones.
ChatOptions chat_options(const Tokenizer& tokenizer);

/// The tokens of a conversation, the assistant's own marked: special where the template writes special tokens, text where a message spells
/// one out.
///
/// A tokenizer that puts a first token before every text puts it here too unless the template has written it, as llama.cpp does; nothing is
/// put at the end. Cost: O(n log n).
Encoded encode_chat(const Tokenizer& tokenizer, const Rendered& rendered);

}  // namespace transformer
