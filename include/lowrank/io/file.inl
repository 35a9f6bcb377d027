#pragma once

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include <lowrank/core/platform.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::string path_text(const std::filesystem::path& path) { return '"' + path.string() + '"'; }

LOWRANK_INLINE void sync_folder(const std::filesystem::path& folder) {
  platform::sync_folder(folder.empty() ? "." : platform::path_bytes(folder).c_str());
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
  temporary_ += concat(".tmp-", platform::process_id(), '-', counter.fetch_add(1));
  descriptor_ = platform::create(platform::path_bytes(temporary_).c_str());
  require(descriptor_ >= 0, "cannot be created", "give a path in a folder that exists and is writable");
}

LOWRANK_INLINE AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) platform::close(descriptor_);
  if (!temporary_.empty()) platform::remove(platform::path_bytes(temporary_).c_str());
}

LOWRANK_INLINE void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::ptrdiff_t count = platform::write(descriptor_, bytes.data(), bytes.size());
    require(count > 0, "cannot be written", "check the space and the limits of the disk; nothing was changed");
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

LOWRANK_INLINE void AtomicFile::finish() {
  require(platform::sync(descriptor_), "cannot be made durable", "check the disk; nothing was changed");
  require(platform::close(std::exchange(descriptor_, -1)), "cannot be closed", "check the disk; nothing was changed");
}

LOWRANK_INLINE void AtomicFile::publish() {
  require(platform::rename(platform::path_bytes(temporary_).c_str(), platform::path_bytes(path_).c_str()), "cannot be renamed to its name",
          "nothing was changed");
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
