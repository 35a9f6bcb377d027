#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::gguf {

/// How much the inputs of a model's matrices matter, as llama.cpp's llama-imatrix measures it: for each column the mean square of its
/// input.
///
/// Two kinds of files are read. GGUF with general.type = imatrix: tensors NAME.in_sum2 and NAME.counts, whose quotient it is (1 where
/// nothing was counted). And the older one, all numbers little-endian: i32 entries; for each i32 length, its name, i32 calls, i32 size,
/// f32[size], divided by the calls where there were any; what follows tells where the texts came from.
class ImportanceMatrix {
 public:
  /// Throws IoError, and FormatError for a file that is damaged or holds numbers that are negative or not finite.
  static ImportanceMatrix open(const std::filesystem::path& path);

  /// Tensors with an entry.
  std::size_t size() const { return entries_.size(); }
  /// The numbers of a tensor [rows, cols], or none where the file has no entry of that name. Throws FormatError for another count of them.
  std::span<const float> of(const std::string& tensor, Index cols) const;

 private:
  std::string file_;
  std::map<std::string, std::vector<float>> entries_;
};

}  // namespace lowrank::inline LOWRANK_ABI::gguf

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/imatrix.inl>
#endif
