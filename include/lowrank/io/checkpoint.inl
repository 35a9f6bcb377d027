#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <set>
#include <string_view>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void save_state(const std::filesystem::path& file, std::span<const StateArray> arrays,
                               const safetensors::Metadata& metadata) {
  std::vector<StoredTensor> tensors;
  for (const StateArray& array : arrays) {
    tensors.push_back({array.name, array.dtype, array.shape, Buffer::allocate(array.bytes.size())});
    if (!array.bytes.empty()) std::memcpy(tensors.back().bytes.mutable_as<std::byte>(), array.bytes.data(), array.bytes.size());
  }
  safetensors::write(file, tensors, metadata);
}

namespace detail {

// "missing a, b and 3 more; ", or nothing.
LOWRANK_INLINE std::string name_list(std::string_view what, const std::vector<std::string>& names) {
  if (names.empty()) return "";
  constexpr std::size_t most = 8;
  std::string text = concat("; ", what, ' ');
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) text += (i ? ", " : "") + names[i];
  return names.size() > most ? concat(text, " and ", names.size() - most, " more") : text;
}

LOWRANK_INLINE bool is_of_optimizer(std::string_view name) { return name.starts_with("optimizer/"); }

/// What keeps a file's tensors from filling the arrays, as a text; empty: nothing.
LOWRANK_INLINE std::string misfits(const safetensors::File& file, std::span<const StateArray> arrays) {
  std::vector<std::string> missing, unexpected, misshapen, faulty;
  std::set<std::string_view> known;
  bool has_optimizer = false;
  for (const StateArray& array : arrays) {
    known.insert(array.name);
    has_optimizer = has_optimizer || is_of_optimizer(array.name);
    const StoredTensor* const tensor = file.find(array.name);
    if (tensor == nullptr) {
      missing.push_back(array.name);
    } else if (tensor->dtype != array.dtype || tensor->shape != array.shape || tensor->bytes.size() != array.bytes.size()) {
      misshapen.push_back(concat(array.name, " (", dtype_name(tensor->dtype), ' ', shape_text(tensor->shape), " there, ",
                                 dtype_name(array.dtype), ' ', shape_text(array.shape), " here)"));
    } else if (array.fault != nullptr) {
      if (const char* fault = array.fault({tensor->bytes.as<std::byte>(), tensor->bytes.size()}))
        faulty.push_back(concat(array.name, " (", fault, ')'));
    }
  }
  for (const StoredTensor& tensor : file.tensors())
    if (!known.contains(tensor.name) && (has_optimizer || !is_of_optimizer(tensor.name))) unexpected.push_back(tensor.name);
  return name_list("missing", missing) + name_list("unexpected", unexpected) + name_list("of another type or shape:", misshapen) +
         name_list("wrong:", faulty);
}

}  // namespace detail

LOWRANK_INLINE void load_state(const std::filesystem::path& path, std::span<const StateArray> arrays) {
  const auto file = safetensors::File::open(path);
  const std::string misfits = detail::misfits(file, arrays);
  check<FormatError>(misfits.empty(), "load", path, " does not fit the model", misfits,
                     "; build model and optimizer as they were when it was saved");
  for (const StateArray& array : arrays) {
    const Buffer& bytes = file.at(array.name).bytes;
    if (bytes.size() > 0) std::memcpy(array.bytes.data(), bytes.data(), bytes.size());
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
