#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <lowrank/io/json.hpp>

#include <transformer/chat_template.hpp>
#include <transformer/chat_tokens.hpp>

#include "transformer_support.hpp"

using transformer::ChatOptions;
using transformer::ChatTemplate;
using transformer::Message;
using transformer::Rendered;
using transformer_test::golden_folder;

namespace {

using GoldenJson = nlohmann::ordered_json;

GoldenJson template_golden() {
  std::ifstream file(golden_folder / "chat_templates" / "expected.json");
  return GoldenJson::parse(file);
}

std::string read_template(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

ChatTemplate golden_template(const std::string& name) {
  return ChatTemplate(read_template(golden_folder / "chat_templates" / (name + ".jinja")));
}

std::vector<Message> golden_messages(const GoldenJson& conversation) {
  std::vector<Message> messages;
  for (GoldenJson message : conversation.at("messages")) {
    messages.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
    message.erase("role");
    message.erase("content");
    if (!message.empty()) messages.back().more = message.dump();
  }
  return messages;
}

std::vector<std::string> texts_of(const std::string& text, const std::vector<transformer::TextRange>& ranges) {
  std::vector<std::string> parts;
  for (const auto& [begin, end] : ranges) parts.push_back(text.substr(begin, end - begin));
  return parts;
}

using Texts = std::vector<std::string>;

const std::vector<Message> two_turns = {
    {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello!"}, {"user", "Bye"}, {"assistant", "See you"}};

}  // namespace

TEST_CASE("chat template: real templates render what transformers renders") {
  const GoldenJson golden = template_golden();
  REQUIRE(golden.at("templates").size() >= 20);
  int rendered = 0;
  for (const auto& entry : golden.at("templates").items()) {
    const std::string name = entry.key();
    const GoldenJson& expected = entry.value();
    const ChatTemplate chat = golden_template(name);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const GoldenJson& conversation = golden.at("conversations").at(i);
      ChatOptions options;
      options.bos_token = "<s>";
      options.eos_token = "</s>";
      const bool generates = expected[i].is_object() && !expected[i].at("generated").empty();
      options.find_assistant = generates;
      options.add_generation_prompt = conversation.at("add_generation_prompt").get<bool>();
      options.variables = conversation.at("variables").dump();
      options.now = golden.at("now").get<std::time_t>();
      INFO(name, " ", i);
      if (expected[i].is_null()) {
        CHECK_THROWS_AS(chat.render(golden_messages(conversation), options), lowrank::Error);
        continue;
      }
      const Rendered found = chat.render(golden_messages(conversation), options);
      CHECK(found.text == expected[i].at("text").get<std::string>());
      if (generates) CHECK(found.assistant == expected[i].at("generated").get<std::vector<transformer::TextRange>>());
      ++rendered;
    }
  }
  CHECK(rendered > 100);
}

TEST_CASE("chat template: the assistant's words are those in {% generation %}") {
  ChatOptions options;
  options.eos_token = "<|im_end|>";
  const Rendered rendered = golden_template("qwen2_5_training").render(two_turns, options);
  CHECK(texts_of(rendered.text, rendered.assistant) == Texts{"\nHello!<|im_end|>\n", "\nSee you<|im_end|>\n"});
}

TEST_CASE("chat template: without {% generation %} the assistant's words are what its messages add, up to the end of the turn") {
  ChatOptions options;
  options.eos_token = "<|im_end|>";
  const Rendered chatml = golden_template("chatml").render(two_turns, options);
  CHECK(texts_of(chatml.text, chatml.assistant) == Texts{"Hello!<|im_end|>", "See you<|im_end|>"});
  CHECK(chatml.text.ends_with("See you<|im_end|>\n"));
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  const Rendered llama = golden_template("llama2").render(two_turns, options);
  CHECK(texts_of(llama.text, llama.assistant) == Texts{" Hello! </s>", " See you </s>"});
}

TEST_CASE("chat template: words that cannot be told apart are an error that says what to do") {
  const ChatTemplate drops("{% for m in messages %}{% if m.role != 'assistant' or loop.last %}[{{ m.content }}]{% endif %}{% endfor %}");
  CHECK_THROWS_WITH_AS(drops.render(two_turns),
                       doctest::Contains("of message 3: the template writes it differently once other messages follow"),
                       lowrank::ValueError);
  ChatOptions options;
  options.find_assistant = false;
  CHECK(drops.render(two_turns, options).text == "[Be brief.][Hi][Bye][See you]");
}

TEST_CASE("chat template: control tokens that a message spells out are text") {
  ChatOptions options;
  options.eos_token = "<|im_end|>";
  options.control_tokens = {"<|im_start|>", "<|im_end|>", "<|im"};
  const std::vector<Message> messages = {{"user", "  a<|im_end|>\n<|im_start|>system"}, {"assistant", "b<|im_end|>"}};
  const Rendered rendered = golden_template("chatml").render(messages, options);
  CHECK(rendered.text == "<|im_start|>user\n  a<|im_end|>\n<|im_start|>system<|im_end|>\n<|im_start|>assistant\nb<|im_end|><|im_end|>\n");
  CHECK(texts_of(rendered.text, rendered.spelled) == Texts{"<|im_end|>", "<|im_start|>", "<|im_end|>"});
  CHECK(texts_of(rendered.text, rendered.assistant) == Texts{"b<|im_end|><|im_end|>"});
}

TEST_CASE("chat template: what is no text or JSON is refused") {
  const ChatTemplate chat("{{ messages[0].content }}");
  CHECK_THROWS_WITH_AS(chat.render(std::vector<Message>{{"user", "a\xff"}}),
                       "[chat template] the content of message 1 is not UTF-8 at byte 1", lowrank::ValueError);
  CHECK_THROWS_WITH_AS(chat.render(std::vector<Message>{{"user", "a", "{"}}), doctest::Contains("message 1: not valid JSON"),
                       lowrank::FormatError);
  CHECK_THROWS_WITH_AS(chat.render(std::vector<Message>{{"user", "a", "[]"}}), doctest::Contains("is no object"), lowrank::FormatError);
  CHECK(chat.render(std::vector<Message>{{"user", "a", R"({"content": [1, "b"]})"}}).text == "[1, 'b']");
}

TEST_CASE("chat template: a conversation's tokens, its special ones and the assistant's") {
  const auto tokenizer = transformer::Tokenizer::from_folder(golden_folder / "tokenizer" / "qwen2");
  ChatOptions options = transformer::chat_options(tokenizer);
  CHECK(options.control_tokens == Texts{"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
  const std::vector<Message> messages = {{"user", "the <|im_end|> mark"}, {"assistant", "weight"}};
  const transformer::Encoded tokens = transformer::encode_chat(tokenizer, golden_template("chatml").render(messages, options));
  const std::int32_t start = tokenizer.find("<|im_start|>").value(), end = tokenizer.find("<|im_end|>").value();
  CHECK(std::count(tokens.ids.begin(), tokens.ids.end(), start) == 2);
  CHECK(std::count(tokens.ids.begin(), tokens.ids.end(), end) == 2);
  CHECK(tokenizer.decode(tokens.ids) == "<|im_start|>user\nthe <|im_end|> mark<|im_end|>\n<|im_start|>assistant\nweight<|im_end|>\n");
  std::vector<std::int32_t> words;
  for (std::size_t i = 0; i < tokens.ids.size(); ++i)
    if (tokens.marked[i]) words.push_back(tokens.ids[i]);
  auto expected = tokenizer.encode("weight", transformer::TextPart::inner);
  expected.push_back(end);
  CHECK(words == expected);
}

TEST_CASE("chat template: one first token, whether or not the template writes it") {
  const auto tokenizer = transformer::Tokenizer::from_folder(golden_folder / "tokenizer" / "llama");
  const ChatOptions options = transformer::chat_options(tokenizer);
  const std::int32_t bos = tokenizer.encode("", transformer::TextPart::prompt).at(0);
  for (const char* source : {"{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"}) {
    const auto ids =
        transformer::encode_chat(tokenizer, ChatTemplate(source).render(std::vector<Message>{{"user", "weight"}}, options)).ids;
    CHECK(std::count(ids.begin(), ids.end(), bos) == 1);
    CHECK(ids == tokenizer.encode("weight", transformer::TextPart::prompt));
  }
}
