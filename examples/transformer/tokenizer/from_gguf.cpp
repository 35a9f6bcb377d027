#include <transformer/tokenizer/from_gguf.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <transformer/tokenizer/named_pretokenizers.hpp>

namespace transformer {

using lowrank::check;
using lowrank::FormatError;

namespace {

std::optional<std::int32_t> id_of(const lowrank::gguf::File& file, const std::string& key) {
  if (file.find(key) == nullptr) return std::nullopt;
  const auto id = file.get<std::uint32_t>(key);
  if (id == 0xFFFFFFFFu) return std::nullopt;  // some converters write "none" so
  check<FormatError>(id <= 0x7FFFFFFFu, "tokenizer", key, " is ", id, ", which is no token");
  return static_cast<std::int32_t>(id);
}

/// "left right": the blank that ends the first token is never its first byte, since a token may not be empty.
std::pair<std::string, std::string> split_merge(const std::string& merge) {
  const std::size_t blank = merge.find(' ', 1);
  check<FormatError>(blank != std::string::npos && blank + 1 < merge.size() && merge.find(' ', blank + 1) == std::string::npos, "tokenizer",
                     "the merge ", lowrank::name_text(merge), " must be two tokens with one blank between them");
  return {merge.substr(0, blank), merge.substr(blank + 1)};
}

/// Control tokens are found where special tokens are allowed, user-defined ones always.
void add_special_tokens(TokenizerData& data) {
  for (std::size_t id = 0; id < data.kinds.size() && id < data.tokens.size(); ++id) {
    const TokenKind kind = data.kinds[id];
    if (kind == TokenKind::control || kind == TokenKind::user_defined || kind == TokenKind::unknown)
      data.added.push_back({.id = static_cast<std::int32_t>(id), .text = data.tokens[id], .special = kind != TokenKind::user_defined});
  }
}

void read_ends(const lowrank::gguf::File& file, TokenizerData& data) {
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = id_of(file, key)) data.ends.push_back(*id);
  for (std::size_t id = 0; id < data.tokens.size(); ++id)
    if (ends_generation(data.tokens[id])) data.ends.push_back(static_cast<std::int32_t>(id));
}

void read_byte_pairs(const lowrank::gguf::File& file, TokenizerData& data, bool& adds_bos) {
  const NamedPreTokenizer& named = named_pretokenizer(file.get_or<std::string>("tokenizer.ggml.pre", "default"));
  for (const std::string_view split : named.splits) data.pre.add_split(Pattern(split));
  data.pre.add_byte_level();
  if (named.nfc) data.normalizer.add_nfc();
  data.ignore_merges = named.ignore_merges;
  adds_bos = named.adds_bos;
  if (file.find("tokenizer.ggml.merges") != nullptr)
    for (const std::string& merge : file.get<std::vector<std::string>>("tokenizer.ggml.merges")) data.merges.push_back(split_merge(merge));
}

void read_scored_pairs(const lowrank::gguf::File& file, TokenizerData& data, bool& adds_bos) {
  data.model = TokenizerModel::scored_pairs;
  data.scores = file.get<std::vector<float>>("tokenizer.ggml.scores");
  data.byte_fallback = true;
  data.strip_leading_space = file.get_or("tokenizer.ggml.add_space_prefix", true);
  if (data.strip_leading_space) data.normalizer.add_prefix(" ");
  data.normalizer.add_replacement(" ", "▁");
  data.unknown = id_of(file, "tokenizer.ggml.unknown_token_id");
  adds_bos = true;
}

}  // namespace

TokenizerData tokenizer_data_from_gguf(const lowrank::gguf::File& file) {
  TokenizerData data;
  const auto model = file.get<std::string>("tokenizer.ggml.model");
  data.tokens = file.get<std::vector<std::string>>("tokenizer.ggml.tokens");
  if (file.find("tokenizer.ggml.token_type") != nullptr)
    for (const std::int32_t kind : file.get<std::vector<std::int32_t>>("tokenizer.ggml.token_type"))
      data.kinds.push_back(kind >= 0 && kind <= 6 ? static_cast<TokenKind>(kind) : TokenKind::undefined);
  add_special_tokens(data);
  data.bos = id_of(file, "tokenizer.ggml.bos_token_id");
  bool adds_bos = false;
  if (model == "gpt2")
    read_byte_pairs(file, data, adds_bos);
  else if (model == "llama")
    read_scored_pairs(file, data, adds_bos);
  else
    lowrank::fail<FormatError>("tokenizer", "tokenizer.ggml.model is ", lowrank::name_text(model),
                               "; known are gpt2 (byte pairs) and llama (pairs by score)");
  read_ends(file, data);
  if (file.get_or("tokenizer.ggml.add_bos_token", adds_bos) && data.bos) data.prefix.push_back(*data.bos);
  if (const auto eos = id_of(file, "tokenizer.ggml.eos_token_id"); eos && file.get_or("tokenizer.ggml.add_eos_token", false))
    data.suffix.push_back(*eos);
  data.chat_template = file.get_or<std::string>("tokenizer.chat_template", "");
  return data;
}

}  // namespace transformer
