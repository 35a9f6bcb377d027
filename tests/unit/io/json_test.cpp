#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

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

TEST_CASE("json::parse: a zero byte is no end of the text") {
  using namespace std::string_view_literals;
  for (const std::string_view text : {"{}\0"sv, "\0{}"sv, "{\"a\": 1}\0{\"b\": 2}"sv, "\"a\0b\""sv})
    CHECK_THROWS_WITH_AS(parse(text), doctest::Contains("not valid JSON: a zero byte at "), FormatError);
}

TEST_CASE("json::parse_members: the members in the order of the text, each bounded, none kept") {
  std::vector<std::string> seen;
  const auto note = [&](const std::string& key, const json::Json& value) { seen.push_back(key + '=' + value.dump()); };
  json::parse_members(R"({"b": {"x": [1, {"y": 2}]}, "a": 3, "c": []})", "test", "file", 10, note);
  CHECK(seen == std::vector<std::string>{R"(b={"x":[1,{"y":2}]})", "a=3", "c=[]"});
  const auto refused = [&](std::string_view text, std::size_t most, const char* reason) {
    CHECK_THROWS_WITH_AS(json::parse_members(text, "test", "file", most, note), doctest::Contains(reason), FormatError);
  };
  refused(R"({"a": 1, "b": [1, 2, 3]})", 3, "\"b\" holds more than 3 values");
  refused(R"({"a": 1, "b": 2, "a": 3})", 9, "the JSON key \"a\" occurs twice");
  refused(R"({"a": {"b": 1, "b": 2}})", 9, "the JSON key \"b\" occurs twice");
  refused("[1]", 9, "is no JSON object");
  refused("1", 9, "is no JSON object");
  refused(R"({"a": 1)", 9, "not valid JSON");
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
