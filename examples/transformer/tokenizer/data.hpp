#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <transformer/tokenizer/added_tokens.hpp>
#include <transformer/tokenizer/normalizer.hpp>
#include <transformer/tokenizer/pretokenizer.hpp>

namespace transformer {

/// What a vocabulary says of a token; the numbers are those of GGUF's `tokenizer.ggml.token_type`.
enum class TokenKind : std::int32_t { undefined = 0, normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// How text becomes tokens.
enum class TokenizerModel {
  byte_pairs,       ///< merges over bytes, tokens spelled with GPT-2's names of bytes
  character_pairs,  ///< merges over characters, <0xNN> tokens for what the vocabulary lacks
  scored_pairs      ///< the same without a list of merges: whatever joins to the token with the best score
};

/// Everything a tokenizer is made of, whichever file it came from. Tokenizer checks it.
struct TokenizerData {
  TokenizerModel model = TokenizerModel::byte_pairs;
  std::vector<std::string> tokens;  ///< spelled as in the file; an empty one is a hole
  std::vector<TokenKind> kinds;     ///< of each token, or empty: all normal
  std::vector<float> scores;        ///< of each token, for scored_pairs
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pre;
  bool ignore_merges = false;        ///< a piece that is a token stays whole
  bool byte_fallback = false;        ///< characters without a token become <0xNN>
  bool fuse_unknown = false;         ///< neighbouring unknown characters become one unknown token
  bool strip_leading_space = false;  ///< decoding takes away the blank that encoding put in front
  std::optional<std::int32_t> bos, unknown;
  std::vector<std::int32_t> prefix, suffix;  ///< put around a text by add_special
  std::vector<std::int32_t> ends;            ///< tokens that end a generated text
  std::string chat_template;
};

/// Texts of tokens that end a turn or a text in the models known, whatever their files say.
inline bool ends_generation(std::string_view token) {
  for (const std::string_view name : {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_text|>", "<|return|>",
                                      "<end_of_turn>", "<EOT>", "[EOT]", "<|endofturn|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>"})
    if (token == name) return true;
  return false;
}

}  // namespace transformer
