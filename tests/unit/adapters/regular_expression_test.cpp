#include <doctest/doctest.h>

#include <lowrank/adapters/regular_expression.hpp>

using namespace lowrank;

namespace {
bool matches(std::string_view expression, std::string_view subject) { return RegularExpression(expression).matches(subject); }
}  // namespace

TEST_CASE("RegularExpression: agrees with Python's re.fullmatch") {
  struct Row {
    const char* expression;
    const char* yes;
    const char* no;
  };
  const Row rows[] = {
      {"", "", "a"},
      {"abc", "abc", "abcd"},
      {"a.c", "axc", "a\nc"},
      {"a\\.c", "a.c", "axc"},
      {"a*", "aaa", "ab"},
      {"a+b", "aab", "b"},
      {"a?b", "b", "aab"},
      {"a{2,3}", "aaa", "a"},
      {"a{2}b", "aab", "ab"},
      {"a{,2}", "", "aaa"},
      {"a{2,}", "aaaa", "a"},
      {"a{x}", "a{x}", "ax"},
      {"a*?b+?", "aabb", "aa"},
      {"(ab|c)*d", "abcabd", "abad"},
      {"(?:a|bc|)x", "x", "bx"},
      {"(?P<name>a)b", "ab", "a"},
      {"[a-c]+", "abc", "abd"},
      {"[^a-c]+", "xyz", "xay"},
      {"[]a]+", "]a", "b"},
      {"[a\\-z]+", "a-z", "b"},
      {"[a-]+", "a-", "b"},
      {"[\\d_]+", "1_2", "a"},
      {"\\d+\\w\\s\\D", "12a b", "12a  1"},
      {"^a$", "a", "b"},
      {"\\Aa\\Z", "a", "ab"},
      {".*\\bq_proj\\b", "x.q_proj", "x.aq_proj"},
      {"a\\Bb", "ab", "a b"},
      {"(?!.*vision).*q_proj", "text.q_proj", "vision.q_proj"},
      {"(?=.*\\.1\\.).*q_proj", "a.1.q_proj", "a.2.q_proj"},
      {"(a*)*b", "aab", "aac"},
      {"(|a)+", "aaa", "b"},
      {"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\\bmodel\\.layers\\.[\\d]{1,}\\.(?:mlp)\\.(?:(?:up_proj)))",
       "model.layers.12.mlp.up_proj", "model.layers..mlp.up_proj"},
      {"^(?!.*(?:vision|audio)).*(?:q|k|v|o)_proj$", "model.layers.0.self_attn.o_proj", "audio.o_proj"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.expression);
    CHECK(matches(row.expression, row.yes));
    CHECK_FALSE(matches(row.expression, row.no));
  }
}

TEST_CASE("RegularExpression: what is malformed or not supported is refused") {
  for (const char* expression :
       {"(",       ")",       "a)",    "(a",     "[",   "[a",  "[]", "*",     "+a",        "a**", "a{3,2}",  "\\",     "[z-a]",
        "(?<=a)b", "(?<!a)b", "(?i)a", "(?P=a)", "\\1", "\\y", "(?", "(?P<a", "(?=(?!a))", "a|*", "[\\d-z]", "[a-\\d]"})
    CHECK_THROWS_WITH_AS(RegularExpression{expression}, doctest::Contains("[regular_expression]"), ValueError);
}

TEST_CASE("RegularExpression: hostile expressions neither hang nor overflow") {
  CHECK_FALSE(matches("(a+)+b", std::string(1000, 'a')));
  CHECK_FALSE(matches("(a|aa)*c", std::string(1000, 'a')));
  std::string optional;
  for (int i = 0; i < 1000; ++i) optional += "a?";
  CHECK(matches(optional, std::string(1000, 'a')));
  CHECK_FALSE(matches(optional, std::string(1001, 'a')));
  CHECK_THROWS_AS(RegularExpression(std::string(100'000, '(')), ValueError);
  CHECK_THROWS_AS(RegularExpression(std::string(100'000, '[')), ValueError);
  CHECK_THROWS_AS(RegularExpression(std::string(100'000, 'a')), ValueError);
  for (const char* expression : {"(a?){20000}", "(((a{99}){99}){99}){99}", "(a?){99999999999999999999}"})
    CHECK_THROWS_AS(RegularExpression{expression}.matches("a"), ValueError);
  CHECK_FALSE(matches(".*", std::string(100'000, 'a')));
}
