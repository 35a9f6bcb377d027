#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tokenizer_files.hpp"

using namespace tokenizer_test;
using transformer::Encoded;
using transformer::SpelledTokens;
using transformer::TextPart;
using transformer::TextRange;
using transformer::Tokenizer;

namespace {

Encoded encode_pair(const Tokenizer& tokenizer, const std::string& prompt, const std::string& completion,
                    TextPart part = TextPart::prompt) {
  const TextRange mark(prompt.size(), prompt.size() + completion.size());
  return tokenizer.encode_text(prompt + completion, {part, SpelledTokens::text, {&mark, 1}});
}

std::vector<int> as_numbers(const std::vector<bool>& marked) { return {marked.begin(), marked.end()}; }

std::filesystem::path case_file(const std::string& name) { return std::filesystem::path(LOWRANK_GOLDEN_DIR) / "cases" / name; }

/// A SentencePiece model's tokenizer, from its folder and from the GGUF that a converter makes of it.
std::vector<Tokenizer> sentence_pieces() {
  lowrank::gguf::Metadata metadata = metadata_of(read_json(case_file("03/model/tokenizer.json")), "");
  set(metadata, "tokenizer.ggml.eos_token_id", std::uint32_t{2});
  return {Tokenizer::from_folder(case_file("03/model")), from_metadata(metadata)};
}

}  // namespace

TEST_CASE("a prompt and its completion are one text, and a token across the seam belongs to the completion") {
  const Json root = read_json(tokenizer_golden("seams.json"));
  for (const std::string name : {"gpt2", "smollm", "llama3", "qwen2", "steps", "llama"}) {
    const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden(name));
    for (std::size_t i = 0; i < root["pairs"].size(); ++i) {
      const auto prompt = root["pairs"][i][0].get<std::string>(), completion = root["pairs"][i][1].get<std::string>();
      CAPTURE(name);
      CAPTURE(prompt);
      CAPTURE(completion);
      const Encoded encoded = encode_pair(tokenizer, prompt, completion);
      CHECK(encoded.ids == root["ids"][name][i].get<Ids>());
      if (!completion.empty()) CHECK(as_numbers(encoded.marked) == root["marked"][name][i].get<std::vector<int>>());
    }
  }
}

TEST_CASE("an accent that joins a letter across the seam makes their token the completion's") {
  const Encoded encoded = encode_pair(Tokenizer::from_folder(tokenizer_golden("qwen2")), "the e", "\xCC\x81tude");
  const auto first = std::find(encoded.marked.begin(), encoded.marked.end(), true) - encoded.marked.begin();
  const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden("qwen2"));
  CHECK(tokenizer.decode(std::span(encoded.ids).first(static_cast<std::size_t>(first) + 1)) == "the \xC3\xA9");
}

TEST_CASE("a completion of a SentencePiece model gets no blank of its own") {
  for (const Tokenizer& tokenizer : sentence_pieces()) {
    const Encoded question = encode_pair(tokenizer, "Question: what is it?\n", "it is good.", TextPart::closed);
    CHECK(question.ids == Ids{1, 300, 382, 321, 293, 402, 412, 296, 401, 403, 271, 259, 404, 397, 288, 277, 265, 2});
    CHECK(std::count(question.marked.begin(), question.marked.end(), true) == 6);
    const Encoded answer = encode_pair(tokenizer, "Answer: ", "good", TextPart::closed);
    CHECK(answer.ids == Ids{1, 300, 272, 409, 296, 306, 316, 397, 288, 277, 2});
    CHECK(std::count(answer.marked.begin(), answer.marked.end(), true) == 4);
  }
}

TEST_CASE("an empty prompt or completion") {
  for (const Tokenizer& tokenizer : sentence_pieces()) {
    CHECK(as_numbers(encode_pair(tokenizer, "Answer: ", "", TextPart::closed).marked) == std::vector<int>{0, 0, 0, 0, 0, 0, 0, 1});
    CHECK(as_numbers(encode_pair(tokenizer, "", "good", TextPart::closed).marked) == std::vector<int>{0, 1, 1, 1, 1, 1});
    CHECK(encode_pair(tokenizer, "", "", TextPart::closed).ids == Ids{1, 2});
    CHECK(as_numbers(encode_pair(tokenizer, "", "", TextPart::closed).marked) == std::vector<int>{0, 1});
  }
}

TEST_CASE("what stands around a text: asked for by its part, and by the file") {
  lowrank::gguf::Metadata metadata = small_metadata();
  set(metadata, "tokenizer.ggml.bos_token_id", std::uint32_t{5});
  const auto ids = [&](TextPart part) { return from_metadata(metadata).encode("ab", part); };
  CHECK(ids(TextPart::prompt) == Ids{2});
  CHECK(ids(TextPart::whole) == Ids{2});
  CHECK(ids(TextPart::closed) == Ids{2, 4});
  set(metadata, "tokenizer.ggml.add_bos_token", true);
  set(metadata, "tokenizer.ggml.add_eos_token", true);
  CHECK(ids(TextPart::inner) == Ids{2});
  CHECK(ids(TextPart::prompt) == Ids{5, 2});
  CHECK(ids(TextPart::whole) == Ids{5, 2, 4});
  CHECK(ids(TextPart::closed) == Ids{5, 2, 4});

  // The same from a folder whose template has both.
  Json root = read_json(tokenizer_golden("llama") / "tokenizer.json");
  root["post_processor"]["single"].push_back({{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}});
  root["post_processor"]["special_tokens"]["</s>"] = {{"id", "</s>"}, {"ids", {2}}, {"tokens", {"</s>"}}};
  const lowrank::test::TemporaryFolder folder;
  lowrank::test::write_file(folder / "tokenizer.json", root.dump());
  lowrank::test::write_file(folder / "tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>"})");
  const Tokenizer tokenizer = Tokenizer::from_folder(folder.path());
  CHECK(tokenizer.encode("the", TextPart::prompt).front() == 1);
  CHECK(tokenizer.encode("the", TextPart::prompt).back() != 2);
  for (const TextPart part : {TextPart::whole, TextPart::closed}) {
    const Ids closed = tokenizer.encode("the", part);
    CHECK(closed.front() == 1);
    CHECK(closed.back() == 2);
    CHECK(std::count(closed.begin(), closed.end(), 2) == 1);
  }
}

TEST_CASE("a first or last token that the text spells out itself is there once") {
  for (const Tokenizer& tokenizer : sentence_pieces())
    for (const SpelledTokens spelled : {SpelledTokens::text, SpelledTokens::tokens}) {
      const Encoded plain = tokenizer.encode_text("hello", {TextPart::closed, spelled}),
                    both = tokenizer.encode_text("<s>hello</s>", {TextPart::closed, spelled});
      CHECK(both.ids == plain.ids);
      CHECK(both.spelled_first);
      CHECK(both.spelled_last);
      CHECK_FALSE(both.spelled_inner);
      CHECK_FALSE(plain.spelled_first);
      CHECK_FALSE(plain.spelled_last);
      // The last token of a prompt is the prompt's.
      CHECK_FALSE(tokenizer.encode_text("hello</s>", {TextPart::prompt, spelled}).spelled_last);
      // Marks stay where they are.
      const TextRange mark(8, 12);
      const Encoded marked = tokenizer.encode_text("<s>hellogood</s>", {TextPart::closed, spelled, {&mark, 1}});
      const Encoded expected = encode_pair(tokenizer, "hello", "good");
      CHECK(marked.ids.size() == expected.ids.size() + 1);
      CHECK(std::equal(expected.marked.begin(), expected.marked.end(), marked.marked.begin()));
      CHECK_FALSE(marked.marked.back());
    }
  // Where the tokenizer puts none in front, nothing is taken away.
  const Tokenizer smollm = Tokenizer::from_folder(tokenizer_golden("smollm"));
  CHECK(smollm.encode("<|im_start|>a", TextPart::whole, SpelledTokens::tokens) == Ids{*smollm.bos(), *smollm.find("a")});
  CHECK_FALSE(smollm.encode_text("<|im_start|>a", {}).spelled_first);
}

TEST_CASE("special tokens in a text: said where they stay text, and never in ranges that are literal") {
  const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden("smollm"));
  const std::string text = "<|im_start|>a<|im_end|>b<|im_end|>";
  CHECK(tokenizer.encode_text(text, {}).spelled_inner == tokenizer.find("<|im_start|>"));
  CHECK_FALSE(tokenizer.encode_text("a <|im_sta b", {}).spelled_inner);
  CHECK_FALSE(tokenizer.encode_text(text, {TextPart::inner, SpelledTokens::tokens}).spelled_inner);
  const TextRange first_end(13, 23), last_end(24, 34);
  const Encoded literal = tokenizer.encode_text(text, {TextPart::inner, SpelledTokens::tokens, {}, {&first_end, 1}});
  const std::int32_t end = tokenizer.find("<|im_end|>").value();
  CHECK(std::count(literal.ids.begin(), literal.ids.end(), end) == 1);
  CHECK(literal.ids.back() == end);
  CHECK(literal.ids.front() == tokenizer.find("<|im_start|>"));
  CHECK(tokenizer.decode(literal.ids) == text);
  const Encoded marked = tokenizer.encode_text(text, {TextPart::inner, SpelledTokens::tokens, {&last_end, 1}, {&first_end, 1}});
  CHECK(std::count(marked.marked.begin(), marked.marked.end(), true) == 1);
  CHECK(marked.marked.back());
}
