#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <lowrank/core/buffer.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/io/file.hpp>
#include <lowrank/io/gguf.hpp>

namespace lowrank::inline LOWRANK_ABI::gguf {

namespace detail {

/// The entries of a GGUF file.
LOWRANK_INLINE std::map<std::string, std::vector<float>> gguf_importance(const File& file) {
  const std::string at = path_text(file.path());
  check<FormatError>(file.get_or<std::string>("general.type", "") == "imatrix", "imatrix", at,
                     " is a GGUF file but no importance matrix (its general.type is not imatrix); give what llama-imatrix wrote");
  constexpr std::string_view suffix = ".in_sum2";
  std::map<std::string, std::vector<float>> entries;
  for (const Tensor& sums : file.tensors()) {
    if (!sums.name.ends_with(suffix)) continue;
    const std::string name = sums.name.substr(0, sums.name.size() - suffix.size());
    const Tensor& counts = file.tensor(name + ".counts");
    check<FormatError>(sums.type == GgmlType::f32 && counts.type == GgmlType::f32 && counts.size() == sums.rows(), "imatrix", at, ": ",
                       name_text(name), " has ", counts.size(), " counts for ", sums.rows(),
                       " rows of sums; both must be F32, a count a row");
    std::vector<float> values = to_floats(sums);
    const std::vector<float> count = to_floats(counts);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float n = count[i / static_cast<std::size_t>(sums.cols())];
      values[i] = n > 0 ? values[i] / n : 1.0f;
    }
    entries[name] = std::move(values);
  }
  return entries;
}

/// The entries of the older kind.
LOWRANK_INLINE std::map<std::string, std::vector<float>> legacy_importance(std::span<const std::byte> bytes, const std::string& at) {
  ByteReader reader(bytes, "imatrix", at);
  const auto count = reader.number<std::int32_t>("the number of entries");
  if (count < 1 || static_cast<std::size_t>(count) > reader.remaining() / 12)
    reader.error("claims ", count, " entries; is this an importance matrix of llama-imatrix?");
  std::map<std::string, std::vector<float>> entries;
  const auto length = [&](const char* what) {
    const auto number = reader.number<std::int32_t>(what);
    if (number < 1) reader.error(what, " is ", number, "; it must be positive");
    return static_cast<std::uint64_t>(number);
  };
  for (std::int32_t i = 0; i < count; ++i) {
    const std::string name = reader.text(length("the length of a name"), "a name");
    const auto calls = reader.number<std::int32_t>("a number of calls");
    const std::uint64_t size = length("the size of an entry");
    reader.need(size * sizeof(float), "an entry");
    std::vector<float> values(static_cast<std::size_t>(size));
    for (float& value : values) value = reader.number<float>("an entry") / static_cast<float>(std::max(1, calls));
    if (!entries.emplace(name, std::move(values)).second) reader.error(name_text(name), " occurs twice");
  }
  return entries;
}

}  // namespace detail

LOWRANK_INLINE ImportanceMatrix ImportanceMatrix::open(const std::filesystem::path& path) {
  ImportanceMatrix result;
  result.file_ = path_text(path);
  const Buffer bytes = Buffer::map(path);
  const bool is_gguf = bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
  result.entries_ = is_gguf ? detail::gguf_importance(File::open(path)) : detail::legacy_importance(bytes.bytes(), result.file_);
  for (const auto& [name, values] : result.entries_)
    check<FormatError>(std::all_of(values.begin(), values.end(), [](float x) { return is_finite(x) && x >= 0; }), "imatrix", result.file_,
                       ": ", name_text(name), " holds numbers that are negative or not finite");
  check<FormatError>(!result.entries_.empty(), "imatrix", result.file_, " has no entries; give what llama-imatrix wrote");
  return result;
}

LOWRANK_INLINE std::span<const float> ImportanceMatrix::of(const std::string& tensor, Index cols) const {
  const auto entry = entries_.find(tensor);
  if (entry == entries_.end()) return {};
  check<FormatError>(entry->second.size() == static_cast<std::size_t>(cols), "imatrix", file_, ": ", name_text(tensor), " has ",
                     entry->second.size(), " numbers but the matrix has ", cols, " columns; is it of another model?");
  return entry->second;
}

}  // namespace lowrank::inline LOWRANK_ABI::gguf
