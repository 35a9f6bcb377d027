#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include <unistd.h>

#include <lowrank/error.hpp>

namespace lowrank::test {

/// A place for small files in memory, where making them durable costs nothing, or else the system's place for temporary files.
inline std::filesystem::path memory_place() {
  return ::access("/dev/shm", W_OK) == 0 ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
}

/// An empty folder that is removed with all it holds.
class TemporaryFolder {
 public:
  TemporaryFolder() : TemporaryFolder(std::filesystem::temp_directory_path()) {}
  explicit TemporaryFolder(const std::filesystem::path& place) {
    static std::atomic<int> counter{0};
    path_ = place / concat("lowrank-test-", ::getpid(), '-', counter++);
    std::filesystem::create_directories(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// Reads every byte, so that a sanitizer sees one that is not there.
inline void touch(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const std::byte byte : bytes) sum += static_cast<unsigned>(byte);
  [[maybe_unused]] const volatile unsigned used = sum;
}

/// What a reader says to a file: nothing when it accepts it, otherwise the text of its lowrank::Error. Anything else it throws passes.
template <class Read>
std::string complaint(const Read& read) {
  try {
    read();
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace lowrank::test
