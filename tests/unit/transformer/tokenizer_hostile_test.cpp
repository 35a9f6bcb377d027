#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tokenizer_files.hpp"

using namespace tokenizer_test;
using lowrank::FormatError;
using transformer::SpelledTokens;
using transformer::TextPart;
using transformer::Tokenizer;

namespace {

void refuses_metadata(const std::string& key, lowrank::gguf::Value value, const char* reason) {
  lowrank::gguf::Metadata metadata = small_metadata();
  set(metadata, key, std::move(value));
  CAPTURE(key);
  CHECK_THROWS_WITH_AS(from_metadata(metadata), doctest::Contains(reason), FormatError);
}

Json small_json() {
  return Json::parse(R"({"added_tokens": [{"id": 3, "content": "<|endoftext|>", "special": true}], "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "unk_token": null, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})");
}

Tokenizer from_text(const std::string& text) {
  const lowrank::test::TemporaryFolder folder;
  lowrank::test::write_file(folder / "tokenizer.json", text);
  return Tokenizer::from_folder(folder.path());
}

/// The small tokenizer with the value at a JSON pointer exchanged.
void refuses_json(const char* pointer, const char* value, const char* reason) {
  Json root = small_json();
  root[Json::json_pointer(pointer)] = Json::parse(value);
  CAPTURE(pointer);
  CAPTURE(value);
  CHECK_THROWS_WITH_AS(from_text(root.dump()), doctest::Contains(reason), FormatError);
}

}  // namespace

TEST_CASE("hostile GGUF metadata is refused") {
  CHECK(from_metadata(small_metadata()).encode("abc a<|endoftext|>", TextPart::whole, SpelledTokens::tokens) == Ids{2, 5, 3, 0, 4});
  refuses_metadata("tokenizer.ggml.model", std::string("bert"), "known are gpt2");
  refuses_metadata("tokenizer.ggml.model", std::uint32_t{7}, "tokenizer.ggml.model");
  refuses_metadata("tokenizer.ggml.pre", std::string("no-such"), "known are default");
  refuses_metadata("tokenizer.ggml.tokens", strings({"a", "b", "ab", "a", "x", "c"}), "every token must differ");
  refuses_metadata("tokenizer.ggml.tokens", strings({}), "the vocabulary has 0 tokens");
  refuses_metadata("tokenizer.ggml.tokens", strings({"a", "b", "ab"}), "token types");
  refuses_metadata("tokenizer.ggml.tokens", numbers({1, 2}), "tokenizer.ggml.tokens");
  refuses_metadata("tokenizer.ggml.tokens", strings({"a", "b", "x", "y", "z", "c"}), "which the vocabulary of 6 does not have");
  refuses_metadata("tokenizer.ggml.tokens", strings({"a", "b", "ab", "Ġ", std::string(4000, '<'), "c"}), "an added token has 4000 bytes");
  refuses_metadata("tokenizer.ggml.token_type", numbers({1, 1}), "token types");
  refuses_metadata("tokenizer.ggml.merges", strings({"a q"}), "needs the token");
  refuses_metadata("tokenizer.ggml.merges", strings({"ab"}), "one blank");
  refuses_metadata("tokenizer.ggml.merges", strings({"a b c"}), "one blank");
  refuses_metadata("tokenizer.ggml.merges", strings({""}), "one blank");
  refuses_metadata("tokenizer.ggml.eos_token_id", std::uint32_t{6}, "the vocabulary has 6 tokens");
  refuses_metadata("tokenizer.ggml.bos_token_id", std::uint32_t{0x80000000}, "no token");
  refuses_metadata("tokenizer.ggml.bos_token_id", std::string("1"), "bos_token_id");
  lowrank::gguf::Metadata scored = small_metadata();
  set(scored, "tokenizer.ggml.model", std::string("llama"));
  CHECK_THROWS_AS(from_metadata(scored), FormatError);  // no scores
  set(scored, "tokenizer.ggml.scores", lowrank::gguf::Array{std::vector<float>{1, 2}});
  CHECK_THROWS_WITH_AS(from_metadata(scored), doctest::Contains("scores"), FormatError);
  set(scored, "tokenizer.ggml.scores", lowrank::gguf::Array{std::vector<float>(6, std::numeric_limits<float>::quiet_NaN())});
  CHECK_THROWS_WITH_AS(from_metadata(scored), doctest::Contains("not a number"), FormatError);
}

TEST_CASE("hostile tokenizer.json is refused") {
  CHECK(from_text(small_json().dump()).encode("ab<|endoftext|>a", TextPart::whole, SpelledTokens::tokens) == Ids{2, 3, 0});
  for (const char* text : {"", "[]", "null", "{", "{}", "\"x\"", "{\"model\": []}", "{\"model\": {\"type\": \"BPE\"}}"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(from_text(text), FormatError);
  }
  refuses_json("/model/type", "\"Unigram\"", "BPE is the one");
  refuses_json("/model/vocab/b", "0", "two tokens have id 0");
  refuses_json("/model/vocab/b", "-1", "must be a token id");
  refuses_json("/model/vocab/b", "1.5", "must be a token id");
  refuses_json("/model/vocab/b", "4000000000", "must be a token id");
  refuses_json("/model/vocab/b", "10000000", "ids must lie close together");
  refuses_json("/model/merges", "[[\"a\", \"x\"]]", "needs the token");
  refuses_json("/model/merges", "[[\"a\"]]", "must be");
  refuses_json("/model/merges", "[7]", "must be");
  refuses_json("/model/merges", "{}", "must be an array");
  refuses_json("/model/dropout", "0.1", "dropout");
  refuses_json("/model/end_of_word_suffix", "\"</w>\"", "marked word parts");
  refuses_json("/model/unk_token", "\"<unk>\"", "not in model.vocab");
  refuses_json("/normalizer", R"({"type": "NFKC"})", "NFKC");
  refuses_json("/normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": "x"})", "empty string");
  refuses_json("/pre_tokenizer", R"({"type": "BertPreTokenizer"})", "BertPreTokenizer");
  refuses_json("/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})", "is not valid");
  refuses_json("/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Other"})", "split behavior");
  refuses_json("/post_processor", R"({"type": "BertProcessing"})", "BertProcessing");
  refuses_json("/post_processor", R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {}})",
               "lacks");
  refuses_json("/post_processor",
               R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {"x": {"ids": [99]}}})",
               "the vocabulary has 4 tokens");
  refuses_json("/added_tokens", R"([{"id": 1, "content": "x", "special": true}])", "two tokens have id 1");
  refuses_json("/added_tokens", R"([{"id": 3, "content": 5}])", "must be a string");
  std::string nested = "null";
  for (int i = 0; i < 40; ++i) nested = R"({"type": "Sequence", "normalizers": [)" + nested + "]}";
  Json root = small_json();
  root["normalizer"] = Json::parse(nested);
  CHECK_THROWS_AS(from_text(root.dump()), FormatError);
}

TEST_CASE("a normalizer that makes a text grow without end is an error") {
  Json root = small_json(), step = Json::parse(R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"})");
  root["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  for (int i = 0; i < 30; ++i) root["normalizer"]["normalizers"].push_back(step);
  CHECK_THROWS_WITH_AS(from_text(root.dump()).encode("a"), doctest::Contains("its normalizer makes more than"), FormatError);
  root["normalizer"]["normalizers"].get_ref<Json::array_t&>().resize(3);
  CHECK(from_text(root.dump()).encode("ba").size() == 1001);
}

TEST_CASE("a folder without a tokenizer says so") {
  const lowrank::test::TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(Tokenizer::from_folder(folder.path()), doctest::Contains("has no tokenizer.json"), lowrank::IoError);
  CHECK_THROWS_AS(Tokenizer::from_folder(folder / "nowhere"), lowrank::IoError);
}

TEST_CASE("an id outside the vocabulary is an error") {
  const Tokenizer tokenizer = from_metadata(small_metadata());
  CHECK_THROWS_AS(tokenizer.token_text(6), lowrank::ValueError);
  CHECK_THROWS_AS(tokenizer.decode(Ids{0, -1}), lowrank::ValueError);
}

TEST_CASE("long texts of one letter end") {
  const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden("gpt2"));
  const Tokenizer llama = Tokenizer::from_folder(tokenizer_golden("llama"));
  const std::size_t length = 1 << 18;
  for (const std::string& unit :
       {std::string("a"), std::string(" "), std::string("\n"), std::string(" \n"), std::string("\xff"), std::string("日")}) {
    std::string text;
    while (text.size() < length) text += unit;
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
    CHECK(llama.decode(llama.encode(text, TextPart::inner)) == text);
  }
}

TEST_CASE("a byte without a token vanishes or becomes the unknown token") {
  CHECK(from_metadata(small_metadata()).encode("aXb") == Ids{2});
  Json root = small_json();
  root["model"]["vocab"]["<unk>"] = 4;
  root["model"]["unk_token"] = "<unk>";
  CHECK(from_text(root.dump()).encode("aXYb") == Ids{0, 4, 4, 1});
  root["model"]["fuse_unk"] = true;
  CHECK(from_text(root.dump()).encode("aXYb") == Ids{0, 4, 1});
}
