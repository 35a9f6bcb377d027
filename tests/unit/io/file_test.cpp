#include <doctest/doctest.h>

#include <csignal>

#include <sys/resource.h>

#include <lowrank/io/file.hpp>

#include "support/files.hpp"

using namespace lowrank;

namespace {
/// Lets no file grow beyond `bytes`: writing fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

std::size_t entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}
}  // namespace

TEST_CASE("AtomicFile: the name holds the old bytes until commit, then the new ones") {
  const test::TemporaryFolder folder;
  const auto path = folder / "x";
  test::write_file(path, "old");
  {
    AtomicFile file(path, "test");
    file.write("new bytes");
    CHECK(test::read_file(path) == "old");
    file.commit();
  }
  CHECK(test::read_file(path) == "new bytes");
  { AtomicFile(path, "test").write("given up"); }
  CHECK(test::read_file(path) == "new bytes");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("AtomicFile: a full disk leaves what was there, and nothing else") {
  const test::TemporaryFolder folder;
  const auto path = folder / "x";
  test::write_file(path, "old");
  {
    const FileSizeLimit limit(4096);
    AtomicFile file(path, "test");
    CHECK_THROWS_WITH_AS(file.write(std::string(10000, 'x')), doctest::Contains("cannot be written"), IoError);
  }
  CHECK(test::read_file(path) == "old");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("AtomicFile: places that cannot be written are errors that name them") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(AtomicFile(folder / "missing/x", "test"), doctest::Contains("cannot be created"), IoError);
  CHECK_THROWS_WITH_AS(AtomicFile(folder.path(), "test"), doctest::Contains("is not a file"), IoError);
  CHECK_THROWS_WITH_AS(AtomicFile("/dev/null", "test"), doctest::Contains("is not a file"), IoError);
}

TEST_CASE("AtomicFile: a link stays a link") {
  const test::TemporaryFolder folder;
  test::write_file(folder / "target", "old");
  std::filesystem::create_symlink("target", folder / "link");
  AtomicFile file(folder / "link", "test");
  file.write("new");
  file.commit();
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(test::read_file(folder / "target") == "new");
}
