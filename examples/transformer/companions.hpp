#pragma once

#include <filesystem>
#include <string>

#include <lowrank/core/buffer.hpp>
#include <lowrank/io/file.hpp>

namespace transformer {

/// Copies a file, atomically. Throws IoError.
inline void copy_whole(const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto bytes = lowrank::Buffer::map(from);
  lowrank::AtomicFile file(to, "copy");
  file.write(bytes.bytes());
  file.commit();
}

/// Copies what stands beside a folder's weights and describes the tokenizer or how to generate; weights, their index and config.json are
/// written anew.
inline void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    const bool is_text = extension == ".json" || extension == ".txt" || extension == ".jinja" || extension == ".model";
    if (!entry.is_regular_file() || !is_text || name == "config.json" || name.ends_with(".index.json")) continue;
    copy_whole(entry.path(), to / name);
  }
}

}  // namespace transformer
