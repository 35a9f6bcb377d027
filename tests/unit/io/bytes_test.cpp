#include <doctest/doctest.h>

#include <vector>

#include <lowrank/io/bytes.hpp>

using namespace lowrank;

TEST_CASE("checked_count: products that overflow are noticed, also beside a zero") {
  constexpr Index huge = std::numeric_limits<Index>::max();
  CHECK(checked_product(huge, 1) == huge);
  CHECK_FALSE(checked_product(huge / 2 + 1, 2).has_value());
  const auto count = [](std::vector<Index> shape) { return checked_count(shape); };
  CHECK(count({}) == 1);
  CHECK(count({3, 0, 5}) == 0);
  CHECK(count({1 << 20, 1 << 20}) == Index{1} << 40);
  CHECK_FALSE(count({huge, 2}).has_value());
  CHECK_FALSE(count({0, huge, huge}).has_value());
  CHECK_FALSE(count({-1}).has_value());
}

TEST_CASE("ByteReader: never leaves its bytes") {
  const std::string data("\x05\0\0\0hello", 9);
  ByteReader in(std::as_bytes(std::span(data)), "test", "\"file\"");
  CHECK(in.text(in.number<std::uint32_t>("a length"), "a word") == "hello");
  CHECK(in.remaining() == 0);
  CHECK_THROWS_WITH_AS(in.number<std::uint8_t>("a byte"),
                       "[test] \"file\" at byte 9: ends inside a byte: it needs 1 bytes but 0 are left; the file is damaged or incomplete",
                       FormatError);
  CHECK_THROWS_AS(in.text(~std::uint64_t{0}, "a word"), FormatError);
}

TEST_CASE("name_text: shows no control characters and no end of a long name") {
  CHECK(name_text("a\nb\x7f") == "\"a?b?\"");
  CHECK(name_text(std::string(1000, 'x')).size() < 100);
  CHECK(name_text("\xff☃") == "\"?☃\"");
}
