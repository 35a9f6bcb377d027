#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

#include <sys/stat.h>

#include <lowrank/core/buffer.hpp>

#include "tests/support/temporary.hpp"

using namespace lowrank;

TEST_CASE("an allocated buffer is zeroed, aligned to 64 bytes, and shared by copies") {
  Buffer buffer = Buffer::allocate(1000);
  CHECK(buffer.size() == 1000);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
  CHECK(std::all_of(buffer.bytes().begin(), buffer.bytes().end(), [](std::byte b) { return b == std::byte{0}; }));
  const Buffer copy = buffer;
  buffer.mutable_as<float>()[3] = 7;
  CHECK(copy.as<float>()[3] == 7);
  CHECK(Buffer::allocate(0).empty());
}

TEST_CASE("a slice shares the bytes and keeps them alive") {
  Buffer part;
  {
    Buffer whole = Buffer::allocate(16);
    whole.mutable_as<std::uint8_t>()[5] = 9;
    part = whole.slice(4, 8).slice(1, 2);
  }
  CHECK(part.size() == 2);
  CHECK(part.as<std::uint8_t>()[0] == 9);
}

TEST_CASE("a slice must lie inside, whatever its numbers") {
  const Buffer buffer = Buffer::allocate(16);
  constexpr std::size_t huge = std::numeric_limits<std::size_t>::max();
  CHECK(buffer.slice(16, 0).empty());
  CHECK_THROWS_WITH_AS(buffer.slice(10, 7), "[slice] bytes [10, +7) of a buffer of 16 bytes", ShapeError);
  CHECK_THROWS_AS(buffer.slice(17, 0), ShapeError);
  CHECK_THROWS_AS(buffer.slice(8, huge), ShapeError);
  CHECK_THROWS_AS(buffer.slice(huge, 8), ShapeError);
  CHECK_THROWS_AS(Buffer().slice(0, 1), ShapeError);
}

TEST_CASE("a mapped file shows its bytes") {
  const TemporaryFolder folder;
  const auto path = folder / "bytes";
  std::ofstream(path) << "hello";
  const Buffer buffer = Buffer::map(path);
  CHECK(std::string(buffer.as<char>(), buffer.size()) == "hello");
  std::filesystem::remove(path);  // the mapping outlives the name
  const Buffer part = buffer.slice(1, 3);
  CHECK(part.as<char>()[0] == 'e');
  std::ofstream(folder / "empty").close();
  CHECK(Buffer::map(folder / "empty").empty());
}

TEST_CASE("what cannot be mapped is an IoError that names it") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(Buffer::map(folder / "absent"), doctest::Contains("absent"), IoError);
  CHECK_THROWS_WITH_AS(Buffer::map(folder.path()), doctest::Contains("is not a regular file"), IoError);
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);  // nobody writes to it: waiting would never end
  CHECK_THROWS_WITH_AS(Buffer::map(folder / "pipe"), doctest::Contains("is not a regular file"), IoError);
}
