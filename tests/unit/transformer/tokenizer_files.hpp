#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/io/gguf_write.hpp>
#include <transformer/tokenizer.hpp>

#include <support/files.hpp>

namespace tokenizer_test {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;

inline std::filesystem::path tokenizer_golden(const std::string& name) {
  return std::filesystem::path(LOWRANK_GOLDEN_DIR) / "tokenizer" / name;
}

inline Json read_json(const std::filesystem::path& path) { return Json::parse(lowrank::test::read_file(path)); }

inline lowrank::gguf::Value strings(std::vector<std::string> items) { return lowrank::gguf::Array{std::move(items)}; }
inline lowrank::gguf::Value numbers(std::vector<std::int32_t> items) { return lowrank::gguf::Array{std::move(items)}; }

inline void set(lowrank::gguf::Metadata& metadata, const std::string& key, lowrank::gguf::Value value) {
  std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
  metadata.emplace_back(key, std::move(value));
}

/// Writes the metadata to a file and reads a tokenizer from it, as a model's file would be read.
inline transformer::Tokenizer from_metadata(const lowrank::gguf::Metadata& metadata) {
  const lowrank::test::TemporaryFolder folder;
  lowrank::gguf::write(folder / "model.gguf", metadata, {});
  return transformer::Tokenizer::from_gguf(lowrank::gguf::File::open(folder / "model.gguf"));
}

/// Four byte tokens, a merge and an end token; tests damage it.
inline lowrank::gguf::Metadata small_metadata() {
  return {{"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", std::string("gpt-2")},
          {"tokenizer.ggml.tokens", strings({"a", "b", "ab", "Ġ", "<|endoftext|>", "c"})},
          {"tokenizer.ggml.token_type", numbers({1, 1, 1, 1, 3, 1})},
          {"tokenizer.ggml.merges", strings({"a b"})},
          {"tokenizer.ggml.eos_token_id", std::uint32_t{4}}};
}

/// The metadata that a converter writes for a tokenizer.json.
inline lowrank::gguf::Metadata metadata_of(const Json& root, const std::string& pre) {
  const bool scored = pre.empty();
  std::map<std::int32_t, std::string> tokens;
  for (const auto& [text, id] : root["model"]["vocab"].items()) tokens[id] = text;
  for (const Json& token : root["added_tokens"]) tokens[token["id"]] = token["content"];
  std::vector<std::string> texts, merges;
  std::vector<std::int32_t> kinds;
  std::vector<float> scores;
  for (const auto& [id, text] : tokens) {
    texts.push_back(text);
    kinds.push_back(scored && text.starts_with("<0x") ? 6 : 1);
    scores.push_back(static_cast<float>(-id));
  }
  for (const Json& token : root["added_tokens"]) kinds[token["id"].get<std::size_t>()] = token["special"] ? 3 : 4;
  for (const Json& merge : root["model"]["merges"])
    merges.push_back(merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  lowrank::gguf::Metadata metadata{{"tokenizer.ggml.model", std::string(scored ? "llama" : "gpt2")},
                                   {"tokenizer.ggml.tokens", strings(texts)},
                                   {"tokenizer.ggml.token_type", numbers(kinds)},
                                   {"tokenizer.ggml.bos_token_id", std::uint32_t{scored ? 1u : 0u}}};
  if (scored) {
    metadata.emplace_back("tokenizer.ggml.scores", lowrank::gguf::Array{scores});
    metadata.emplace_back("tokenizer.ggml.unknown_token_id", std::uint32_t{0});
  } else {
    metadata.emplace_back("tokenizer.ggml.merges", strings(merges));
    metadata.emplace_back("tokenizer.ggml.pre", pre);
  }
  return metadata;
}

}  // namespace tokenizer_test
