#include <doctest/doctest.h>

#include <string>
#include <type_traits>

#include <lowrank/error.hpp>

using namespace lowrank;

TEST_CASE("an error begins with its operation and prints every part") {
  CHECK_THROWS_WITH_AS(fail<ShapeError>("linear", "x is [", 512, ", ", 8, "]"), "[linear] x is [512, 8]", ShapeError);
  CHECK_THROWS_WITH_AS(check<ValueError>(false, "scale", 0.5, ' ', std::string("given")), "[scale] 0.5 given", ValueError);
  CHECK_NOTHROW(check<ValueError>(true, "scale", "nothing"));
}

TEST_CASE("every error is an Error and a std::runtime_error") {
  static_assert(std::is_base_of_v<std::runtime_error, Error>);
  CHECK_THROWS_AS(fail<ShapeError>("op"), Error);
  CHECK_THROWS_AS(fail<ValueError>("op"), Error);
  CHECK_THROWS_AS(fail<FormatError>("op"), Error);
  CHECK_THROWS_AS(fail<IoError>("op"), std::runtime_error);
}

TEST_CASE("a callable part is called when the message is printed, and only then") {
  int calls = 0;
  const auto costly = [&] { return std::to_string(++calls); };
  check<ValueError>(true, "op", "call ", costly);
  CHECK(calls == 0);
  CHECK_THROWS_WITH_AS(check<ValueError>(false, "op", "call ", costly, '.'), "[op] call 1.", ValueError);
  CHECK(calls == 1);
}

TEST_CASE("concat joins what a stream prints") { CHECK(concat("a", 1, 'b', 2.5, std::string("c")) == "a1b2.5c"); }

TEST_CASE("errors are one line of valid UTF-8 whatever a file's names hold") {
  CHECK_THROWS_WITH_AS(fail<ShapeError>("op", "a\nb\x1b[2J\xff", "é"), "[op] a?b?[2J?é", ShapeError);
  CHECK(printable("") == "");
  CHECK(printable("plain ☃ \U0001F600") == "plain ☃ \U0001F600");
  CHECK(printable(std::string_view("\0\t\r\x7f\xc2\x85", 6)) == "?????");                   // control characters, the last one of two bytes
  CHECK(printable("\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x98") == "?? ??? ???? ??");  // overlong, surrogate, too large, cut
  CHECK(printable("aaaa☃b", 5) == "aaaa☃…");
  CHECK(printable("aaaaa", 5) == "aaaaa");
}
