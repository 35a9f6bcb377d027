#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include <lowrank/core/platform.hpp>

#include "tests/support/temporary.hpp"

using namespace lowrank;

TEST_CASE("platform: pages are zero, and writable to their last byte") {
  constexpr std::size_t size = (5 << 20) + 3;
  auto* bytes = static_cast<unsigned char*>(platform::map_pages(size));
  REQUIRE(bytes != nullptr);
  CHECK(std::all_of(bytes, bytes + size, [](unsigned char b) { return b == 0; }));
  bytes[size - 1] = 7;
  CHECK(bytes[size - 1] == 7);
  platform::unmap_pages(bytes, size);
  CHECK(platform::map_pages(0) == nullptr);
  platform::unmap_pages(nullptr, 0);
}

TEST_CASE("platform: a file is made once, written, read back by its mapping, renamed over another and removed") {
  const TemporaryFolder folder;
  const std::string first = platform::path_bytes(folder / "first"), second = platform::path_bytes(folder / "second");
  const int out = platform::create(first.c_str());
  REQUIRE(out >= 0);
  CHECK(platform::create(first.c_str()) == -1);
  CHECK(errno == EEXIST);
  CHECK(platform::write(out, "line\r\n\x1a", 7) == 7);  // as they are: no end of line or of file is translated
  CHECK(platform::sync(out));
  CHECK(platform::close(out));

  std::ofstream(second) << "something else";
  CHECK(platform::rename(first.c_str(), second.c_str()));
  platform::sync_folder(platform::path_bytes(folder.path()).c_str());
  CHECK(platform::open_to_read(first.c_str()) == -1);
  CHECK(errno == ENOENT);
  CHECK_FALSE(platform::rename(first.c_str(), second.c_str()));

  const int in = platform::open_to_read(second.c_str());
  REQUIRE(in >= 0);
  platform::FileStatus status;
  REQUIRE(platform::read_status(in, status));
  CHECK(status.is_regular);
  REQUIRE(status.size == 7);
  const std::byte* bytes = platform::map_file(in, status.size);
  CHECK(platform::close(in));
  REQUIRE(bytes != nullptr);
  CHECK(std::memcmp(bytes, "line\r\n\x1a", 7) == 0);
  platform::unmap_file(bytes, status.size);

  CHECK(platform::remove(second.c_str()));
  CHECK_FALSE(platform::remove(second.c_str()));
}

TEST_CASE("platform: what is wrong with a descriptor is said, not done") {
  platform::FileStatus status;
  CHECK_FALSE(platform::read_status(-1, status));
  CHECK_FALSE(platform::sync(-1));
  CHECK_FALSE(platform::close(-1));
  CHECK(platform::write(-1, "x", 1) == -1);
  CHECK(platform::map_file(-1, 4096) == nullptr);
}

TEST_CASE("platform: caches are sizes or unknown, the second no smaller than the first") {
  const long l1 = platform::cache_bytes(1), l2 = platform::cache_bytes(2);
  CHECK((l1 == 0 || l1 >= 4096));
  CHECK((l2 == 0 || l2 >= l1));
  CHECK(platform::process_id() > 0);
}
