#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <lowrank/core/tensor.hpp>
#include <lowrank/io/file.hpp>

/// The safetensors format: 8 bytes n (little-endian), n bytes of JSON, then the tensors' bytes back to back.
///
/// JSON: {"__metadata__": {string: string}, NAME: {"dtype": "F32", "shape": [8, 64], "data_offsets": [begin, end]}, …}; offsets count
/// from the end of the header. Tensors must cover the rest of the file without holes or overlaps, so a file has no place to hide
/// anything. https://github.com/huggingface/safetensors

namespace lowrank::inline LOWRANK_ABI::safetensors {

using Tensor = StoredTensor;  ///< a tensor of the file; its bytes are a window on the map
/// Keys and texts in the order of the file.
using Metadata = std::vector<std::pair<std::string, std::string>>;
using lowrank::to_floats;

inline constexpr std::uint64_t max_header_size = 100'000'000;  ///< bytes; the format's own limit
inline constexpr std::size_t max_dimensions = 64;              ///< PyTorch's limit

/// A safetensors file, mapped: opening reads its header alone, and tensors share the mapping.
class File {
 public:
  /// Maps and checks the whole header. Throws IoError, or FormatError for anything that the format does not allow.
  static File open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const Metadata& metadata() const { return metadata_; }
  /// In the order of the file.
  const std::vector<Tensor>& tensors() const { return tensors_; }

  /// The tensor of that name, or null.
  const Tensor* find(const std::string& name) const;
  bool contains(const std::string& name) const { return find(name) != nullptr; }

  /// The tensor of that name. Throws FormatError when there is none.
  const Tensor& at(const std::string& name) const;

 private:
  std::filesystem::path path_;
  Metadata metadata_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, std::size_t> index_;
};

/// Streams the format into a file that the caller commits.
void write(AtomicFile& out, const std::string& name, std::span<const Tensor> tensors, const Metadata& metadata);

/// Writes the tensors under that path, atomically; the bytes are those of the reference implementation for the same content.
///
/// Throws ShapeError when bytes and shape disagree, ValueError for names that occur twice, IoError; then nothing has changed.
void write(const std::filesystem::path& path, std::span<const Tensor> tensors, const Metadata& metadata = {});

}  // namespace lowrank::inline LOWRANK_ABI::safetensors

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/safetensors.inl>
#endif
