#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tokenizer_files.hpp"

using namespace tokenizer_test;
using transformer::SpelledTokens;
using transformer::StreamDecoder;
using transformer::TextPart;
using transformer::Tokenizer;

namespace {

/// Texts and the ids that the tokenizers package, 0.23, gives for them with each tokenizer.json of the folder.
struct Expected {
  std::vector<std::string> texts;
  std::vector<Ids> ids;

  explicit Expected(const std::string& name) {
    const Json root = read_json(tokenizer_golden("expected.json"));
    texts = root["texts"].get<std::vector<std::string>>();
    ids = root["ids"][name].get<std::vector<Ids>>();
  }
};

void check_ids(const Tokenizer& tokenizer, const Expected& expected) {
  REQUIRE(expected.texts.size() == expected.ids.size());
  for (std::size_t i = 0; i < expected.texts.size(); ++i) {
    CAPTURE(expected.texts[i]);
    Ids ids = tokenizer.encode("", TextPart::prompt);  // the reference puts the first token in front of one that is spelled out, too
    const Ids inner = tokenizer.encode(expected.texts[i], TextPart::inner, SpelledTokens::tokens);
    ids.insert(ids.end(), inner.begin(), inner.end());
    CHECK(ids == expected.ids[i]);
  }
}

Ids ids_of(const Tokenizer& tokenizer, std::initializer_list<const char*> tokens) {
  Ids ids;
  for (const char* token : tokens) ids.push_back(tokenizer.find(token).value());
  return ids;
}

}  // namespace

TEST_CASE("tokenizer.json gives the reference's ids") {
  for (const std::string name : {"gpt2", "smollm", "llama3", "qwen2", "steps", "llama"}) {
    CAPTURE(name);
    check_ids(Tokenizer::from_folder(tokenizer_golden(name)), Expected(name));
  }
}

TEST_CASE("GGUF metadata gives the reference's ids") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"gpt2", "gpt-2"}, {"smollm", "smollm"}, {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}, {"llama", ""}};
  for (const auto& entry : cases) {
    const std::string &name = entry.first, &pre = entry.second;
    CAPTURE(name);
    check_ids(from_metadata(metadata_of(read_json(tokenizer_golden(name) / "tokenizer.json"), pre)), Expected(name));
  }
}

TEST_CASE("decoding gives the text back") {
  for (const std::string name : {"gpt2", "smollm", "llama3"}) {
    const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden(name));
    for (const std::string& text : Expected(name).texts) CHECK(tokenizer.decode(tokenizer.encode(text, TextPart::inner)) == text);
  }
  const Tokenizer llama = Tokenizer::from_folder(tokenizer_golden("llama"));
  CHECK(llama.strips_leading_space());
  for (const std::string& text : Expected("llama").texts)
    if (text.find("▁") == std::string::npos && text.find("<s>") == std::string::npos)
      CHECK(llama.decode(llama.encode(text, TextPart::inner)) == text);
}

TEST_CASE("bytes that are not UTF-8 pass through") {
  const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden("smollm"));
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  for (const std::string& text : {all, std::string("ok \xff\xfe <|im_end|> \xe6\x97"), std::string("\xed\xa0\x80"),
                                  std::string("\xf4\x90\x80\x80"), std::string("\xc0\xaf"), std::string("a\xcc\x81\xcc")})
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  const Tokenizer llama = Tokenizer::from_folder(tokenizer_golden("llama"));
  CHECK(llama.decode(llama.encode(all, TextPart::inner)) == all);
}

TEST_CASE("special tokens are whole where they are allowed, text where not") {
  const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden("smollm"));
  const std::string text = "<|im_start|>a<|im_end|>";
  CHECK(tokenizer.encode(text, TextPart::whole, SpelledTokens::tokens) == ids_of(tokenizer, {"<|im_start|>", "a", "<|im_end|>"}));
  const Ids plain = tokenizer.encode(text);
  CHECK(plain.size() > 8);
  CHECK(tokenizer.decode(plain) == text);
  // A user's own added tokens are no special ones: they stay whole.
  const Tokenizer steps = Tokenizer::from_folder(tokenizer_golden("steps"));
  CHECK(steps.encode("<|im_start|><tool>").back() == steps.find("<tool>").value());
}

TEST_CASE("of two added tokens the leftmost counts, then the longest") {
  lowrank::gguf::Metadata metadata = small_metadata();
  set(metadata, "tokenizer.ggml.tokens", strings({"a", "b", "ab", "aba", "baab", "c"}));
  set(metadata, "tokenizer.ggml.token_type", numbers({1, 1, 4, 4, 4, 1}));
  const Tokenizer tokenizer = from_metadata(metadata);
  CHECK(tokenizer.encode("abaab") == Ids{3, 2});
  CHECK(tokenizer.encode("cabc") == Ids{5, 2, 5});
}

TEST_CASE("what surrounds a text and what ends one") {
  const Tokenizer smollm = Tokenizer::from_folder(tokenizer_golden("smollm"));
  CHECK(smollm.bos() == smollm.find("<|im_start|>"));
  CHECK(smollm.eos() == ids_of(smollm, {"<|im_end|>", "<|endoftext|>"}));
  CHECK(smollm.is_eos(smollm.find("<|endoftext|>").value()));
  CHECK_FALSE(smollm.is_eos(smollm.find("a").value()));
  CHECK(smollm.chat_template() == "{{ messages }}");
  CHECK(smollm.encode("").empty());

  const Tokenizer llama3 = Tokenizer::from_folder(tokenizer_golden("llama3"));
  CHECK(llama3.encode("") == ids_of(llama3, {"<|begin_of_text|>"}));
  CHECK(llama3.encode("", TextPart::inner).empty());

  lowrank::gguf::Metadata metadata = small_metadata();
  set(metadata, "tokenizer.ggml.bos_token_id", std::uint32_t{5});
  CHECK(from_metadata(metadata).encode("a") == Ids{0});
  set(metadata, "tokenizer.ggml.add_bos_token", true);
  set(metadata, "tokenizer.ggml.add_eos_token", true);
  CHECK(from_metadata(metadata).encode("a") == Ids{5, 0, 4});
  CHECK(from_metadata(metadata).eos() == Ids{4});
}

TEST_CASE("bytes alone: a vocabulary of 256 and no merges") {
  lowrank::gguf::Metadata metadata = small_metadata();
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(transformer::byte_names().name(static_cast<unsigned char>(byte)));
  tokens.push_back("<|endoftext|>");
  std::vector<std::int32_t> kinds(257, 1);
  kinds.back() = 3;
  set(metadata, "tokenizer.ggml.tokens", strings(tokens));
  set(metadata, "tokenizer.ggml.token_type", numbers(kinds));
  set(metadata, "tokenizer.ggml.merges", strings({}));
  set(metadata, "tokenizer.ggml.eos_token_id", std::uint32_t{256});
  const Tokenizer tokenizer = from_metadata(metadata);
  CHECK(tokenizer.vocab_size() == 257);
  CHECK(tokenizer.encode("A é\n") == Ids{65, 32, 195, 169, 10});
  CHECK(tokenizer.encode("a<|endoftext|>", TextPart::whole, SpelledTokens::tokens) == Ids{97, 256});
  CHECK(tokenizer.token_text(10) == "\n");
}

TEST_CASE("a stream shows whole characters only") {
  const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_golden("smollm"));
  for (const std::string& text : Expected("smollm").texts) {
    StreamDecoder stream(tokenizer);
    std::string shown;
    for (const std::int32_t id : tokenizer.encode(text, TextPart::whole, SpelledTokens::tokens)) {
      const std::string piece = stream.push(id);
      CHECK(transformer::valid_utf8_length(piece) == piece.size());
      shown += piece;
    }
    CHECK(shown + stream.finish() == text);
  }
  StreamDecoder stream(tokenizer);
  std::string shown;
  for (const std::int32_t id : tokenizer.encode("x\xff\xf0\x9f\x99y\xf0\x9f")) shown += stream.push(id);
  CHECK(shown == "x��y");
  CHECK(stream.finish() == "�");
  CHECK(stream.finish().empty());

  const Tokenizer llama = Tokenizer::from_folder(tokenizer_golden("llama"));
  const Ids ids = llama.encode("the text", TextPart::inner);
  StreamDecoder first(llama), later(llama, true);
  std::string first_text, later_text;
  for (const std::int32_t id : ids) {
    first_text += first.push(id);
    later_text += later.push(id);
  }
  CHECK(first_text == "the text");
  CHECK(later_text == " the text");
}
