#include <transformer/tokenizer/from_folder.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/buffer.hpp>
#include <lowrank/io/file.hpp>
#include <lowrank/io/json.hpp>

#include <transformer/tokenizer/json_steps.hpp>

namespace transformer {

using namespace json_tokenizer;

namespace {

std::string whole_file(const std::filesystem::path& path) {
  const lowrank::Buffer bytes = lowrank::Buffer::map(path);
  return bytes.empty() ? std::string() : std::string(bytes.as<char>(), bytes.size());
}

/// A JSON file of the folder; null when it is not there.
Json read_json(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return {};
  return lowrank::json::parse(whole_file(path), "tokenizer", lowrank::path_text(path));
}

std::int32_t token_id(const Json& value, std::string_view what) {
  const auto id = lowrank::json::as_index(value);
  check<FormatError>(id && *id < 1 << 24, "tokenizer", what, " is ", lowrank::json::excerpt(value), "; it must be a token id below 2^24");
  return static_cast<std::int32_t>(*id);
}

/// Puts a token at its place; the vocabulary may have holes, but not more holes than tokens.
void place_token(TokenizerData& data, std::int32_t id, const std::string& text, std::size_t count) {
  const auto place = static_cast<std::size_t>(id);
  check<FormatError>(place < 2 * count + 1024, "tokenizer", "a token has id ", id, " in a vocabulary of ", count,
                     " tokens; ids must lie close together");
  if (place >= data.tokens.size()) data.tokens.resize(place + 1);
  check<FormatError>(data.tokens[place].empty() || data.tokens[place] == text, "tokenizer", "two tokens have id ", id, ": ",
                     lowrank::name_text(data.tokens[place]), " and ", lowrank::name_text(text));
  data.tokens[place] = text;
}

std::pair<std::string, std::string> read_merge(const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  check<FormatError>(merge.is_string(), "tokenizer", "the merge ", lowrank::json::excerpt(merge), R"( must be "a b" or ["a", "b"])");
  const auto text = merge.get<std::string>();
  const std::size_t blank = text.find(' ');
  check<FormatError>(blank != std::string::npos && blank > 0 && blank + 1 < text.size() && text.find(' ', blank + 1) == std::string::npos,
                     "tokenizer", "the merge ", lowrank::json::excerpt(merge), " must be two tokens with one blank between them");
  return {text.substr(0, blank), text.substr(blank + 1)};
}

void refuse_option(const Json& model, const char* key, bool harmless, std::string_view reason) {
  check<FormatError>(harmless, "tokenizer", "the model has ", key, " = ", lowrank::json::excerpt(model.at(key)), "; ", reason);
}

void read_model(const Json& root, TokenizerData& data) {
  const Json& model = member(root, "model");
  const std::string type = model.is_object() ? option<std::string>(model, "type", "BPE") : "";
  check<FormatError>(type == "BPE", "tokenizer", "tokenizer.json has a model of type ", lowrank::name_text(type),
                     "; BPE is the one that is read");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (model.contains(key) && !model[key].is_null())
      refuse_option(model, key, model[key] == Json(""), "vocabularies with marked word parts are not read");
  if (model.contains("dropout") && !model["dropout"].is_null())
    refuse_option(model, "dropout", model["dropout"] == Json(0.0), "merges are never left out here; remove it");
  const Json& vocabulary = member(model, "vocab");
  check<FormatError>(vocabulary.is_object(), "tokenizer", "model.vocab must be an object of tokens and ids");
  for (const auto& [text, id] : vocabulary.items()) place_token(data, token_id(id, "the id of a token"), text, vocabulary.size());
  const Json& merges = member(model, "merges");
  check<FormatError>(merges.is_array(), "tokenizer", "model.merges must be an array");
  for (const Json& merge : merges) data.merges.push_back(read_merge(merge));
  data.ignore_merges = option(model, "ignore_merges", false);
  data.byte_fallback = option(model, "byte_fallback", false);
  data.fuse_unknown = option(model, "fuse_unk", false);
  if (const auto unknown = option<std::string>(model, "unk_token", ""); !unknown.empty()) {
    check<FormatError>(vocabulary.contains(unknown), "tokenizer", "model.unk_token is ", lowrank::name_text(unknown),
                       ", which is not in model.vocab");
    data.unknown = token_id(vocabulary.at(unknown), "the unknown token");
  }
}

void read_added_tokens(const Json& root, TokenizerData& data) {
  if (!root.contains("added_tokens") || root.at("added_tokens").is_null()) return;
  const Json& added = root.at("added_tokens");
  check<FormatError>(added.is_array(), "tokenizer", "added_tokens must be an array");
  const std::size_t count = data.tokens.size() + added.size();
  // Special tokens come first: of two with the same text the first counts.
  for (const bool special : {true, false}) {
    for (const Json& entry : added) {
      if (option(entry, "special", false) != special) continue;
      AddedToken token{.id = token_id(member(entry, "id"), "the id of an added token"),
                       .text = text_of(entry, "content"),
                       .special = special,
                       .lstrip = option(entry, "lstrip", false),
                       .rstrip = option(entry, "rstrip", false),
                       .single_word = option(entry, "single_word", false),
                       .normalized = option(entry, "normalized", !special)};
      place_token(data, token.id, token.text, count);
      data.added.push_back(std::move(token));
    }
  }
}

std::optional<std::int32_t> find_token(const TokenizerData& data, std::string_view text) {
  for (const AddedToken& token : data.added)
    if (token.text == text) return token.id;
  for (std::size_t id = 0; id < data.tokens.size(); ++id)
    if (!text.empty() && data.tokens[id] == text) return static_cast<std::int32_t>(id);
  return std::nullopt;
}

/// A token that tokenizer_config.json names: a string, or an object with its content.
std::optional<std::int32_t> configured_token(const TokenizerData& data, const Json& config, const char* key) {
  if (!config.is_object() || !config.contains(key) || config.at(key).is_null()) return std::nullopt;
  const Json& value = config.at(key);
  return find_token(data, value.is_object() ? text_of(value, "content") : text_of(config, key));
}

void read_end_ids(const Json& config, TokenizerData& data) {
  if (!config.is_object() || !config.contains("eos_token_id") || config.at("eos_token_id").is_null()) return;
  const Json& ids = config.at("eos_token_id");
  // The model may have rows beyond its vocabulary; an id there never ends anything.
  const auto add = [&](const Json& value) {
    const std::int32_t id = token_id(value, "eos_token_id");
    if (static_cast<std::size_t>(id) < data.tokens.size()) data.ends.push_back(id);
  };
  if (!ids.is_array()) return add(ids);
  for (const Json& id : ids) add(id);
}

std::string read_chat_template(const std::filesystem::path& folder, const Json& config) {
  if (std::filesystem::exists(folder / "chat_template.jinja")) return whole_file(folder / "chat_template.jinja");
  if (!config.is_object() || !config.contains("chat_template")) return "";
  const Json& value = config.at("chat_template");
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return "";
  for (const Json& entry : value)
    if (option<std::string>(entry, "name", "") == "default") return text_of(entry, "template");
  return "";
}

}  // namespace

TokenizerData tokenizer_data_from_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json";
  check<IoError>(std::filesystem::exists(path), "tokenizer", lowrank::path_text(folder),
                 " has no tokenizer.json; give a folder with one, or a GGUF file");
  const Json root = read_json(path), config = read_json(folder / "tokenizer_config.json");
  check<FormatError>(root.is_object(), "tokenizer", lowrank::path_text(path), " holds no JSON object");
  TokenizerData data;
  read_model(root, data);
  read_added_tokens(root, data);
  add_normalizer(root, data.normalizer);
  add_pre_tokenizer(root, data.pre);
  data.model = data.pre.byte_level() ? TokenizerModel::byte_pairs : TokenizerModel::character_pairs;
  data.strip_leading_space = strips_leading_space(root);
  read_post_processor(root, data.prefix, data.suffix);
  data.bos = configured_token(data, config, "bos_token");
  if (config.is_object() && option(config, "add_bos_token", false) && data.bos && data.prefix.empty()) data.prefix.push_back(*data.bos);
  if (const auto eos = configured_token(data, config, "eos_token")) data.ends.push_back(*eos);
  read_end_ids(read_json(folder / "generation_config.json"), data);
  read_end_ids(read_json(folder / "config.json"), data);
  for (std::size_t id = 0; id < data.tokens.size(); ++id)
    if (ends_generation(data.tokens[id])) data.ends.push_back(static_cast<std::int32_t>(id));
  data.chat_template = read_chat_template(folder, config);
  return data;
}

}  // namespace transformer
