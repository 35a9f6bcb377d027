#pragma once

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::string path_text(const std::filesystem::path& path) { return '"' + path.string() + '"'; }

LOWRANK_INLINE void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

LOWRANK_INLINE AtomicFile::AtomicFile(std::filesystem::path path, std::string_view operation)
    : operation_(operation), path_(std::move(path)) {
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

LOWRANK_INLINE AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

LOWRANK_INLINE void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    require(count > 0, "cannot be written", "check the space and the limits of the disk; nothing was changed");
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

LOWRANK_INLINE void AtomicFile::finish() {
  require(::fsync(descriptor_) == 0, "cannot be made durable", "check the disk; nothing was changed");
  require(::close(std::exchange(descriptor_, -1)) == 0, "cannot be closed", "check the disk; nothing was changed");
}

LOWRANK_INLINE void AtomicFile::publish() {
  require(::rename(temporary_.c_str(), path_.c_str()) == 0, "cannot be renamed to its name", "nothing was changed");
  temporary_.clear();
  sync_folder(path_.parent_path());
}

LOWRANK_INLINE void AtomicFile::commit() {
  finish();
  publish();
}

LOWRANK_INLINE void AtomicFile::require(bool condition, std::string_view what, std::string_view advice) const {
  const int code = errno;
  check<IoError>(condition, operation_, path_text(path_), ' ', what, ": ", std::strerror(code), "; ", advice);
}

}  // namespace lowrank::inline LOWRANK_ABI
