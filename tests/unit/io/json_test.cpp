#include <doctest/doctest.h>

#include <lowrank/io/json.hpp>

using namespace lowrank;

namespace {
json::Json parse(std::string_view text) { return json::parse(text, "test", "\"file\""); }
}  // namespace

TEST_CASE("json::parse: what RFC 8259 does not allow is an error that names the file") {
  CHECK(parse(R"({"a": [1, 2.5, null, "é"]})").at("a").size() == 4);
  for (const char* text :
       {"", "{", "{\"a\":}", "[1,]", "NaN", "{\"a\":1}x", "// c\n1", "\"\xff\"", "\"\xed\xa0\x80\"", "01", "\"\\u12\"", "'a'"})
    CHECK_THROWS_WITH_AS(parse(text), doctest::Contains("[test] \"file\": not valid JSON"), FormatError);
}

TEST_CASE("json::parse: keys that occur twice are errors, at any depth, but not in neighbours") {
  CHECK_THROWS_WITH_AS(parse(R"({"a": 1, "a": 2})"), doctest::Contains("\"a\" occurs twice"), FormatError);
  CHECK_THROWS_AS(parse(R"({"x": [{"b": {"a": 1, "c": 2, "a": 3}}]})"), FormatError);
  CHECK_NOTHROW(parse(R"({"x": {"a": 1}, "y": {"a": 1}, "a": [{"a": 1}, {"a": 2}]})"));
}

TEST_CASE("json::parse: deep nesting is an error, not a stack overflow") {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += open;
    CHECK_THROWS_WITH_AS(parse(text), doctest::Contains("nested more than 64 deep"), FormatError);
  }
  std::string text(static_cast<std::size_t>(json::max_depth), '[');
  text += std::string(static_cast<std::size_t>(json::max_depth), ']');
  CHECK_NOTHROW(parse(text));
}

TEST_CASE("json::as_index: whole numbers of 63 bits and nothing else") {
  CHECK(json::as_index(parse("0")) == 0);
  CHECK(json::as_index(parse("9223372036854775807")) == std::numeric_limits<Index>::max());
  for (const char* text : {"-1", "1.0", "1e3", "9223372036854775808", "18446744073709551616", "\"1\"", "null", "true", "[1]"})
    CHECK_FALSE(json::as_index(parse(text)).has_value());
}

TEST_CASE("json::MemberKeys: the order of the text") {
  json::MemberKeys keys{"b", {}};
  json::parse(R"({"a": {"z": 1}, "b": {"y": 1, "x": {"w": 1}, "v": 2}, "c": {"u": 1}})", "test", "file", std::ref(keys));
  CHECK(keys.keys == std::vector<std::string>{"y", "x", "v"});
}
