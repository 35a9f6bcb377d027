#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <transformer/batch.hpp>
#include <transformer/data/load.hpp>
#include <transformer/load.hpp>
#include <transformer/train.hpp>

#include "tokenizer_files.hpp"

using lowrank::FormatError;
using lowrank::ValueError;
using tokenizer_test::Ids;
using transformer::Dataset;
using transformer::Example;
using transformer::Records;
using transformer::SpelledTokens;
using transformer::Tokenizer;

namespace {

const std::filesystem::path data_cases = std::filesystem::path(LOWRANK_GOLDEN_DIR) / "cases";

Records records_of(const std::string& text, const std::string& name = "data.jsonl") {
  const lowrank::test::TemporaryFolder folder(lowrank::test::memory_place());
  lowrank::test::write_file(folder / name, text);
  Records records = transformer::read_records(folder / name);
  records.name = name;
  return records;
}

std::string text_record(const std::string& text) { return tokenizer_test::Json{{"text", text}}.dump() + '\n'; }
std::string pair_record(const std::string& prompt, const std::string& completion) {
  return tokenizer_test::Json{{"prompt", prompt}, {"completion", completion}}.dump() + '\n';
}

/// The tokenizer of the models of the cases: byte pairs with <s> and </s>, as GGUF has it, with or without a first and a last token.
Tokenizer byte_pairs(bool first, bool last) {
  using namespace tokenizer_test;
  lowrank::gguf::Metadata metadata = metadata_of(read_json(data_cases / "11/model/tokenizer.json"), "gpt-2");
  set(metadata, "tokenizer.ggml.bos_token_id", std::uint32_t{1});
  set(metadata, "tokenizer.ggml.eos_token_id", std::uint32_t{2});
  set(metadata, "tokenizer.ggml.add_bos_token", first);
  set(metadata, "tokenizer.ggml.add_eos_token", last);
  return from_metadata(metadata);
}

/// One byte a token, 256 for the end; nothing is put in front.
const Tokenizer& one_byte_tokens() {
  static const Tokenizer tokenizer =
      Tokenizer::from_gguf(lowrank::gguf::File::open(std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data/demo.gguf"));
  return tokenizer;
}

transformer::Evaluation measure(const std::filesystem::path& model, const Tokenizer& tokenizer, const std::string& text) {
  transformer::Transformer loaded = transformer::load_model(model);
  const Dataset data = transformer::make_dataset(tokenizer, records_of(text), {.length = 256, .hold_out = false});
  const transformer::Evaluation result = transformer::evaluate(loaded, nullptr, data.train);
  CHECK(data.report.predicted == result.tokens);
  CHECK(data.report.is_whole());
  return result;
}

void check_measured(const transformer::Evaluation& result, double nll, lowrank::Index tokens) {
  CHECK(result.tokens == tokens);
  CHECK(result.mean_nll == doctest::Approx(nll).epsilon(1e-5));
}

lowrank::Index learned(const Example& example) {
  lowrank::Index count = 0;
  for (std::size_t i = 0; i < example.ids.size(); ++i) count += example.predicts(i);
  return count;
}

std::string bytes_of(const Example& example) { return std::string(example.ids.begin(), example.ids.end() - (example.ids.back() == 256)); }

}  // namespace

TEST_CASE("a completion follows its prompt without an end between them, whatever the tokenizer puts behind texts") {
  for (const bool last : {false, true})
    check_measured(measure(data_cases / "11/model", byte_pairs(true, last), pair_record("hello", " world")), 5.7975, 5);
}

TEST_CASE("a text begins and ends once, and its end is learned") {
  const std::string text = "hello world, this is a small test";
  for (const bool last : {false, true}) {
    const Tokenizer tokenizer = byte_pairs(true, last);
    CHECK(tokenizer.encode("hello world", transformer::TextPart::prompt).size() == 9);
    const auto one = measure(data_cases / "11/model", tokenizer, text_record(text));
    CHECK(one.tokens == 25);
    check_measured(measure(data_cases / "11/model", tokenizer, text_record(text) + text_record(text)), one.mean_nll, 50);
    // A first token and an end that the record spells out are those.
    const Dataset spelled = transformer::make_dataset(tokenizer, records_of(text_record("<s>" + text + "</s>")), {.hold_out = false});
    const Dataset plain = transformer::make_dataset(tokenizer, records_of(text_record(text)), {.hold_out = false});
    CHECK(spelled.train[0].ids == plain.train[0].ids);
    REQUIRE(spelled.report.notes.size() == 2);
    CHECK(spelled.report.notes[0].what == "the text spells out <s>, which is put in front anyway; it is there once");
    CHECK(spelled.report.notes[1].what == "the text spells out </s>, which is put behind anyway; it is there once");
    CHECK(spelled.report.warnings()[0] == "data.jsonl line 1: the text spells out <s>, which is put in front anyway; it is there once");
    CHECK(plain.report.notes.empty());
  }
}

TEST_CASE("completions of a SentencePiece model are scored as one text with their prompts") {
  const Tokenizer tokenizer = Tokenizer::from_folder(data_cases / "03/model");
  check_measured(measure(data_cases / "03/model", tokenizer, pair_record("Question: what is it?\n", "it is good.")), 7.0049, 6);
  check_measured(measure(data_cases / "03/model", tokenizer, pair_record("Answer: ", "good")), 7.0215, 4);
}

TEST_CASE("each record is a text of its own, in any order") {
  const Tokenizer tokenizer = Tokenizer::from_folder(data_cases / "11/model");
  const std::string a = text_record("the quick brown fox jumps over the lazy dog."),
                    b = text_record("a gardener waters plants in the morning.");
  check_measured(measure(data_cases / "11/model", tokenizer, a + b), 6.4485, 43);
  check_measured(measure(data_cases / "11/model", tokenizer, b + a), 6.4485, 43);
}

TEST_CASE("prompts and completions in every format give the demo model's loss") {
  std::string lines, array = "[", csv = "prompt,completion,id\n";
  for (int i = 0; i < 12; ++i) {
    const std::string number = std::to_string(i), record = pair_record("Question " + number, " answer " + number);
    lines += record;
    array += (i > 0 ? "," : "") + record;
    csv += "Question " + number + ", answer " + number + ",1\n";
  }
  transformer::Transformer model = transformer::load_model(std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data/demo.gguf");
  for (const std::string& text : {lines, array + "]", csv}) {
    const Dataset data = transformer::make_dataset(one_byte_tokens(), records_of(text, "data"), {.length = 512, .hold_out = false});
    check_measured(transformer::evaluate(model, nullptr, data.train), 2.3752, 122);
  }
}

TEST_CASE("what is left out or cut is said, with why and where, and is an error where it must be whole") {
  std::string text;
  for (int i = 0; i < 20; ++i) text += pair_record(std::string(i % 10 == 3 ? 20 : 40, 'w'), " never seen");
  text += pair_record(std::string(28, 'w'), " never seen");  // four bytes of it fit
  const Records records = records_of(text);
  const Dataset data = transformer::make_dataset(one_byte_tokens(), records, {.length = 32, .hold_out = false});
  CHECK(data.train.size() == 3);
  CHECK(data.report.records == 21);
  CHECK(data.report.sequences == 3);
  CHECK(data.report.predicted == 12 + 12 + 5);
  REQUIRE(data.report.left_out.size() == 1);
  CHECK(data.report.left_out[0].places.size() == 18);
  REQUIRE(data.report.cut.size() == 1);
  CHECK(data.report.cut[0].places == std::vector<lowrank::Index>{21});
  CHECK(data.report.summary() ==
        "data.jsonl: JSON lines, 21 records, 97 tokens in 3 sequences, 29 to predict; left out 18 (what is to be learned begins after the "
        "32 tokens of --sequence: lines 1, 2, 3, 5, 6 and 13 more); cut 1 (at the 32 tokens of --sequence: line 21)");
  const auto strict = [&](const Records& all, lowrank::Index length) {
    return lowrank::test::complaint(
        [&] { transformer::make_dataset(one_byte_tokens(), all, {.length = length, .hold_out = false, .strict = true}); });
  };
  CHECK(strict(records, 32).find("left out 18") != std::string::npos);
  CHECK(strict(records, 32).find("--strict-data") != std::string::npos);
  CHECK(strict(records, 64).empty());
  CHECK(strict(records_of(text_record("abc") + text_record("")), 64).find("the text is empty: line 2") != std::string::npos);
  CHECK(strict(records_of("{\"text\": \"abc\", \"id\": 1}"), 64).find("not used: \"id\"") != std::string::npos);
}

TEST_CASE("what teaches nothing: empty texts, single tokens, nothing but those") {
  const auto made = [](const std::string& text) {
    return transformer::make_dataset(one_byte_tokens(), records_of(text), {.length = 8, .hold_out = false});
  };
  CHECK_THROWS_WITH_AS(made(text_record("") + text_record("")), doctest::Contains("2 (the text is empty: lines 1, 2)"), ValueError);
  CHECK(made(text_record("") + text_record("a")).train[0].ids == Ids{97, 256});  // the end of one byte
  CHECK(made(pair_record("ab", "")).train[0].ids == Ids{97, 98, 256});
  CHECK(learned(made(pair_record("ab", "")).train[0]) == 1);
  CHECK(made(pair_record("ab", "")).report.notes[0].what.find("the completion is empty") == 0);
  CHECK(learned(made(pair_record("", "ab")).train[0]) == 2);  // b and the end: nothing comes before a
  CHECK_THROWS_WITH_AS(made(pair_record("", "")), doctest::Contains("there is nothing to predict: line 1"), ValueError);
  CHECK_THROWS_WITH_AS(made(pair_record("0123456789", "a")), doctest::Contains("larger --sequence"), ValueError);
  const Records plain = records_of("a", "data.txt");
  CHECK_THROWS_WITH_AS(transformer::make_dataset(one_byte_tokens(), plain, {.hold_out = false}),
                       doctest::Contains("one token predicts nothing"), ValueError);
}

TEST_CASE("long records become windows in which every token but the record's first is predicted once") {
  const Dataset data = transformer::make_dataset(one_byte_tokens(), records_of(text_record("0123456789") + text_record("ab")),
                                                 {.length = 4, .hold_out = false});
  REQUIRE(data.train.size() == 4);
  CHECK(bytes_of(data.train[0]) == "01234");
  CHECK(bytes_of(data.train[1]) == "45678");
  CHECK(data.train[2].ids == Ids{'8', '9', 256});
  CHECK(data.train[3].ids == Ids{'a', 'b', 256});
  CHECK(data.report.predicted == 10 + 2);
  CHECK(data.report.is_whole());
}

TEST_CASE("the held-out part: every tenth record, or the last tenth of one text, and all of the rest is learned") {
  std::string text;
  for (int i = 0; i < 21; ++i) text += text_record("record " + std::to_string(i));
  const Dataset records = transformer::make_dataset(one_byte_tokens(), records_of(text), {.length = 16});
  REQUIRE(records.held_out.size() == 2);
  CHECK(bytes_of(records.held_out[0]) == "record 9");
  CHECK(bytes_of(records.held_out[1]) == "record 19");
  CHECK(records.train.size() == 19);
  CHECK(records.report.held_out == 2);

  const std::string letters(105, 'x');
  const Dataset plain = transformer::make_dataset(one_byte_tokens(), records_of(letters, "data.txt"), {.length = 16});
  CHECK(plain.report.tokens == 105);
  CHECK(plain.report.predicted == 105 - 2);  // the first token of either part is not
  CHECK(plain.report.held_out == 1);
  const Dataset small = transformer::make_dataset(one_byte_tokens(), records_of("short", "data.txt"), {.length = 16});
  CHECK(small.train.size() == 1);
  CHECK(small.held_out.empty());
  CHECK(bytes_of(small.train[0]) == "short");
}

TEST_CASE("a batch predicts what its examples do") {
  const Example text{{1, 2, 3}}, marked{{4, 5, 6, 7}, {false, false, true, false}};
  const transformer::Batch batch = transformer::make_batch(std::vector<const Example*>{&text, &marked});
  const std::int32_t none = lowrank::ignored_target;
  CHECK(batch.targets == Ids{2, 3, none, none, 6, none});
}

TEST_CASE("special tokens that data spells out are text, and tokens where they are asked for") {
  const Tokenizer tokenizer = Tokenizer::from_folder(tokenizer_test::tokenizer_golden("smollm"));
  const Records records = records_of(pair_record("<|im_start|>user", "hi<|im_end|>"));
  const auto made = [&](SpelledTokens spelled) {
    return transformer::make_dataset(tokenizer, records, {.hold_out = false, .spelled = spelled});
  };
  const Dataset text = made(SpelledTokens::text), tokens = made(SpelledTokens::tokens);
  const std::int32_t start = tokenizer.find("<|im_start|>").value(), end = tokenizer.find("<|im_end|>").value();
  CHECK(std::count(text.train[0].ids.begin(), text.train[0].ids.end(), start) == 0);
  CHECK(tokens.train[0].ids.front() == start);
  for (const Dataset& data : {text, tokens}) {  // the end that the completion spells out is the end that closes it
    CHECK(std::count(data.train[0].ids.begin(), data.train[0].ids.end(), end) == 1);
    CHECK(data.train[0].predicts(data.train[0].ids.size() - 1));
  }
  CHECK(text.report.notes.back().what.find("special token <|im_start|>, which is read as text") != std::string::npos);
  for (const auto& note : tokens.report.notes) CHECK(note.what.find("read as text") == std::string::npos);
}

namespace {

/// The tokenizer with roles and ends of turns, and a template.
Tokenizer chat_tokenizer(const std::string& chat_template) {
  const lowrank::test::TemporaryFolder folder;
  lowrank::test::write_file(folder / "tokenizer.json",
                            lowrank::test::read_file(tokenizer_test::tokenizer_golden("smollm") / "tokenizer.json"));
  lowrank::test::write_file(
      folder / "tokenizer_config.json",
      tokenizer_test::Json{{"bos_token", "<|im_start|>"}, {"eos_token", "<|im_end|>"}, {"chat_template", chat_template}}.dump());
  return Tokenizer::from_folder(folder.path());
}

constexpr const char* turns =
    "{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

std::string message_record(std::initializer_list<std::pair<const char*, const char*>> messages) {
  auto list = tokenizer_test::Json::array();
  for (const auto& [role, content] : messages) list.push_back({{"role", role}, {"content", content}});
  return tokenizer_test::Json{{"messages", list}}.dump() + '\n';
}

std::string learned_text(const Tokenizer& tokenizer, const Example& example) {
  Ids words;
  for (std::size_t i = 0; i < example.ids.size(); ++i)
    if (example.predicts(i)) words.push_back(example.ids[i]);
  return tokenizer.decode(words);
}

}  // namespace

TEST_CASE("of messages what the assistant says is learned, with the end of its turns") {
  const Tokenizer tokenizer = chat_tokenizer(turns);
  const auto made = [&](const std::string& text) { return transformer::make_dataset(tokenizer, records_of(text), {.hold_out = false}); };
  const std::string talk =
      message_record({{"user", "a <|im_end|> b"}, {"assistant", "the fox"}, {"user", "and"}, {"assistant", "the dog"}});
  const Dataset data = made(talk);
  const Example& example = data.train.at(0);
  CHECK(tokenizer.decode(example.ids) ==
        "<|im_start|>user\na <|im_end|> b<|im_end|>\n<|im_start|>assistant\nthe fox<|im_end|>\n"
        "<|im_start|>user\nand<|im_end|>\n<|im_start|>assistant\nthe dog<|im_end|>\n");
  CHECK(learned_text(tokenizer, example) == "the fox<|im_end|>the dog<|im_end|>");
  CHECK(std::count(example.ids.begin(), example.ids.end(), *tokenizer.find("<|im_end|>")) == 4);  // the one that the user spells is text
  CHECK(data.report.notes.empty());
  CHECK_THROWS_WITH_AS(made(message_record({{"user", "hi"}})), doctest::Contains("there is nothing to predict: line 1"), ValueError);
  CHECK_THROWS_WITH_AS(made(talk + message_record({{"tool", "hi"}, {"assistant", "a"}})), doctest::Contains("line 2: "), ValueError);
  CHECK_THROWS_WITH_AS(transformer::make_dataset(chat_tokenizer(""), records_of(talk), {}), doctest::Contains("has no chat template"),
                       FormatError);
}
