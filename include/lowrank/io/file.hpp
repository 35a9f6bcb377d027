#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A path between quotes, as errors print it.
std::string path_text(const std::filesystem::path& path);

/// Makes a folder's entries durable after a rename; file systems without that are left as they are.
void sync_folder(const std::filesystem::path& folder);

/// A file that appears under its name complete or not at all: bytes go to a temporary neighbour, which `commit` renames.
///
/// Until then whatever had the name is untouched; without commit the neighbour is removed. Throws IoError.
class AtomicFile {
 public:
  AtomicFile(std::filesystem::path path, std::string_view operation);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// All bytes are on the disk, still under the temporary name.
  void finish();

  /// Gives the finished file its name.
  void publish();

  void commit();

 private:
  void require(bool condition, std::string_view what, std::string_view advice) const;

  std::string operation_;
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/file.inl>
#endif
