#pragma once

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lowrank/core/buffer.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A path between quotes, as errors print it.
inline std::string path_text(const std::filesystem::path& path) { return '"' + path.string() + '"'; }

/// Makes a folder's entries durable after a rename; file systems without that are left as they are.
inline void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

/// A file that appears under its name complete or not at all: bytes go to a temporary neighbour, which `commit` renames.
///
/// Until then whatever had the name is untouched; without commit the neighbour is removed. Throws IoError.
class AtomicFile {
 public:
  AtomicFile(std::filesystem::path path, std::string_view operation) : operation_(operation), path_(std::move(path)) {
    std::error_code ignored;
    if (std::filesystem::is_symlink(path_, ignored)) path_ = std::filesystem::weakly_canonical(path_, ignored);  // keep the link
    const auto status = std::filesystem::status(path_, ignored);
    check<IoError>(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status), operation_, path_text(path_),
                   " exists and is not a file; choose another path");
    static std::atomic<unsigned> counter{0};
    temporary_ = path_;
    temporary_ += concat(".tmp-", ::getpid(), '-', counter.fetch_add(1));
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    require(descriptor_ >= 0, "cannot be created", "give a path in a folder that exists and is writable");
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      require(count > 0, "cannot be written", "check the space and the limits of the disk; nothing was changed");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// All bytes are on the disk, still under the temporary name.
  void finish() {
    require(::fsync(descriptor_) == 0, "cannot be made durable", "check the disk; nothing was changed");
    require(::close(std::exchange(descriptor_, -1)) == 0, "cannot be closed", "check the disk; nothing was changed");
  }

  /// Gives the finished file its name.
  void publish() {
    require(::rename(temporary_.c_str(), path_.c_str()) == 0, "cannot be renamed to its name", "nothing was changed");
    temporary_.clear();
    sync_folder(path_.parent_path());
  }

  void commit() {
    finish();
    publish();
  }

 private:
  void require(bool condition, std::string_view what, std::string_view advice) const {
    const int code = errno;
    check<IoError>(condition, operation_, path_text(path_), ' ', what, ": ", std::strerror(code), "; ", advice);
  }

  std::string operation_;
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

}  // namespace lowrank::inline LOWRANK_ABI
