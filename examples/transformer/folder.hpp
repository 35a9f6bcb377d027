#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/io/safetensors.hpp>

/// A Hugging Face folder: its tensors, in one file or several, and what stands beside them.

namespace transformer {

using lowrank::Index;

/// All safetensors of a folder as one set of names: model.safetensors, or the shards that its index lists.
class FolderTensors {
 public:
  /// Throws IoError, and FormatError where index and files disagree.
  explicit FolderTensors(const std::filesystem::path& folder);

  bool has(const std::string& name) const { return where_.contains(name); }
  const std::vector<lowrank::safetensors::File>& files() const { return files_; }
  /// The file that has the tensor.
  const lowrank::safetensors::File& file_of(const std::string& name) const;
  /// The tensor, marked as read, of that shape.
  const lowrank::StoredTensor& take(const std::string& name, const std::vector<Index>& shape);
  /// Marks a tensor and all that belong to it (name.…) as read.
  void mark(const std::string& name);
  /// Throws FormatError if a tensor was left over.
  void finish() const;

 private:
  std::filesystem::path folder_;
  std::vector<lowrank::safetensors::File> files_;
  std::map<std::string, std::size_t> where_;
  std::set<std::string> taken_;
};

/// Copies a file, atomically. Throws IoError.
void copy_whole(const std::filesystem::path& from, const std::filesystem::path& to);

/// Copies what stands beside a folder's weights and describes the tokenizer or how to generate; weights, their index and config.json are
/// written anew.
void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace transformer
