#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <transformer/tokenizer/merge.hpp>
#include <transformer/tokenizer/named_pretokenizers.hpp>
#include <transformer/tokenizer/nfc.hpp>
#include <transformer/tokenizer/pretokenizer.hpp>

using namespace transformer;

namespace {

std::vector<std::string> pieces(const PreTokenizer& pre, std::string_view text) {
  std::vector<std::string> result;
  pre.split(text, true, [&](std::string_view piece) { result.emplace_back(piece); });
  return result;
}

std::vector<std::string> named(std::string_view name, std::string_view text) {
  PreTokenizer pre;
  for (const std::string_view split : named_pretokenizer(name).splits) pre.add_split(Pattern(split));
  return pieces(pre, text);
}

std::vector<std::string> split(std::string_view pattern, SplitBehavior behavior, std::string_view text, bool invert = false) {
  PreTokenizer pre;
  pre.add_split(Pattern(pattern), behavior, invert);
  return pieces(pre, text);
}

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  std::vector<std::string> result;
  Pattern(pattern).for_each_match(text, [&](std::size_t begin, std::size_t end) { result.emplace_back(text.substr(begin, end - begin)); });
  return result;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("pre-tokenizers cut as their names promise") {
  CHECK(named("gpt-2", "I'll pay  1234 now!\n\n x") == Strings{"I", "'ll", " pay", " ", " 1234", " now", "!", "\n\n", " x"});
  CHECK(named("smollm", "a  12 b") == Strings{"a", "  ", "1", "2", " b"});
  CHECK(named("llama-bpe", "I'LL pay 12345.\n\nx  y") == Strings{"I", "'LL", " pay", " ", "123", "45", ".\n\n", "x", " ", " y"});
  CHECK(named("qwen2", "x12(\n") == Strings{"x", "1", "2", "(\n"});
  CHECK(named("gpt-4o", "camelCase HTTPServer don't") == Strings{"camel", "Case", " HTTPServer", " don't"});
  CHECK(named("tekken", "camelCase 12") == Strings{"camel", "Case", " ", "1", "2"});
  CHECK(named("deepseek-llm", "ab 12\n中文!") == Strings{"ab", " ", "12", "\n", "中文", "!"});
  CHECK(named("deepseek-llm", "\u1f7d \u212a\u03c9") == Strings{"\u1f7d", " ", "\u212a", "\u03c9"});
  CHECK(named("default", "a==b 12345") == Strings{"a", "==", "b", " ", "123", "45"});
  CHECK(named("falcon", "x1234") == Strings{"x", "123", "4"});
  CHECK(named("bloom", " a,b") == Strings{" a", ",", "b"});
  for (const NamedPreTokenizer& entry : named_pretokenizers())
    for (const std::string_view pattern : entry.splits) CHECK_NOTHROW(Pattern{pattern});
}

TEST_CASE("an unknown pre-tokenizer is an error that lists the known ones") {
  CHECK_THROWS_WITH_AS(named_pretokenizer("no-such"), doctest::Contains("known are default, gpt-2"), lowrank::FormatError);
}

TEST_CASE("what becomes of matches") {
  CHECK(split("-", SplitBehavior::isolated, "a-b--c") == Strings{"a", "-", "b", "-", "-", "c"});
  CHECK(split("-", SplitBehavior::removed, "a-b--c") == Strings{"a", "b", "c"});
  CHECK(split("-", SplitBehavior::contiguous, "a-b--c") == Strings{"a", "-", "b", "--", "c"});
  CHECK(split("-", SplitBehavior::merged_with_previous, "a-b--c") == Strings{"a-", "b-", "-", "c"});
  CHECK(split("-", SplitBehavior::merged_with_next, "a-b--c") == Strings{"a", "-b", "-", "-c"});
  CHECK(split("[a-z]+", SplitBehavior::removed, "ab1cd", true) == Strings{"ab", "cd"});
  CHECK(split("(?=[A-Z])", SplitBehavior::isolated, "oneTwoÄThree") == Strings{"one", "TwoÄ", "Three"});
}

TEST_CASE("classes mean what the patterns' makers meant") {
  CHECK(matches(R"(\s+)", "a\u00a0\u180e\u2028b\u0085") == Strings{"\u00a0", "\u2028", "\u0085"});
  CHECK(matches(R"([^\s]+)", "a\u180e b") == Strings{"a\u180e", "b"});
  CHECK(matches(R"(\w+)", "a_1² e\u0301‿x") == Strings{"a_1", "e\u0301‿x"});
  CHECK(matches(R"(\h+)", "xAFg") == Strings{"AF"});
  CHECK(matches(R"([]a]+)", "x]a") == Strings{"]a"});
  CHECK(matches(R"(\p{Lu}+\x{41}?)", "ÄÖ") == Strings{"ÄÖ"});
  CHECK(matches("a$", "a\na") == Strings{"a", "a"});
  // Numbers by the newest Unicode, punctuation by version 8 of it: what the reference's tables hold.
  CHECK(matches(transformer::patterns::digit, "a1½\U0001D2C0\U00016FF4b") == Strings{"1", "½", "\U0001D2C0", "\U00016FF4"});
  CHECK(matches(transformer::patterns::punctuation, "a!`\u2E42\u2E45\u166D\u061D\u2E5D\u3001€") ==
        Strings{"!", "`", "\u2E42", "\u166D", "\u3001"});
}

TEST_CASE("patterns that cannot be matched alike are refused") {
  for (const char* pattern :
       {"[a-z&&[^b]]", "[a[bc]]", R"(\p{N}{1,3}+)", R"(\Ka)", R"([\S]a)", "(*NO_JIT)a", "a\\", "(", "[a", R"(\p{Nothing})"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS(Pattern{pattern}, lowrank::FormatError);
  }
}

TEST_CASE("a pattern that runs away is an error") {
  const std::string text(64, 'a');
  CHECK_THROWS_AS(matches("(?:a|aa)+$", text + "c"), lowrank::ValueError);
}

TEST_CASE("normalization form C") {
  CHECK(to_nfc("plain") == "plain");
  CHECK(to_nfc("e\u0301") == "é");
  CHECK(to_nfc("q\u0307\u0323") == "q\u0323\u0307");          // marks in order of class
  CHECK(to_nfc("a\u0323\u0302") == "\u1ead");                 // composed twice
  CHECK(to_nfc("\u212b\u2126") == "ÅΩ");                      // singletons
  CHECK(to_nfc("\u0958") == "\u0915\u093c");                  // excluded from composition
  CHECK(to_nfc("\u1100\u1161\u11a8\uac00\u11a8") == "각각");  // Hangul
  CHECK(to_nfc("a\u0334\u0301") == "á\u0334");                // a lower class does not block
  CHECK(to_nfc("a\u0302\u0301") == "\u1ea5");
  CHECK(to_nfc("\u0301a\xff\u0301") == "\u0301a\xff\u0301");  // nothing composes across a broken byte
}

TEST_CASE("UTF-8: what is whole, broken or unfinished") {
  CHECK(valid_utf8_length("aé日🙂") == 10);
  CHECK(valid_utf8_length("a\xc3") == 1);
  CHECK(valid_utf8_length("\xe0\x9f\xbf") == 0);      // overlong
  CHECK(valid_utf8_length("\xed\xa0\x80") == 0);      // a surrogate
  CHECK(valid_utf8_length("\xf4\x90\x80\x80") == 0);  // beyond U+10FFFF
  CHECK(replace_invalid_utf8("a\xf0\x9f\x99z\xc0\xaf") == "a\uFFFDz\uFFFD\uFFFD");
  std::string bytes;
  CHECK(byte_names().decode("Ġaé", bytes));
  CHECK(bytes == " a\xe9");
  CHECK_FALSE(byte_names().decode("a b", bytes));
  CHECK(fallback_byte("<0x0A>") == 10);
  CHECK_FALSE(fallback_byte("<0xG0>").has_value());
}

TEST_CASE("merges go by rank, then from the left") {
  const auto merge = [](std::size_t count, auto lookup) {
    std::vector<Symbol> symbols;
    for (std::size_t i = 0; i < count; ++i) symbols.push_back({i, i + 1, 1});
    std::vector<std::size_t> ends;
    for (const Symbol& symbol : merge_symbols(std::move(symbols), lookup)) ends.push_back(symbol.end);
    return ends;
  };
  const auto pairs = [](const Symbol& left, const Symbol& right) -> std::optional<Merge> {
    return left.id == 1 && right.id == 1 ? std::optional(Merge{0, 2}) : std::nullopt;
  };
  CHECK(merge(5, pairs) == std::vector<std::size_t>{2, 4, 5});
  CHECK(merge(0, pairs).empty());
  const auto all = [](const Symbol& left, const Symbol& right) { return std::optional(Merge{0, left.id + right.id}); };
  CHECK(merge(100'000, all) == std::vector<std::size_t>{100'000});
}
