#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/target.hpp>
#include <lowrank/io/bytes.hpp>

/// What the adapter formats share: a look at the numbers, rows and columns moved byte by byte, and a configuration for files that have
/// none.

namespace lowrank::inline LOWRANK_ABI::detail {

/// Throws FormatError naming the tensor and the first of its numbers that is not finite.
inline void check_finite(const StoredTensor& tensor, std::string_view operation, const std::string& file) {
  const std::vector<float> values = to_floats(tensor);
  const auto wrong = std::find_if(values.begin(), values.end(), [](float x) { return !is_finite(x); });
  check<FormatError>(wrong == values.end(), operation, file, ": ", name_text(tensor.name), " holds ", wrong == values.end() ? 0 : *wrong,
                     " at position ", wrong - values.begin(), "; the training that made it diverged");
}

/// A matrix of whole-byte elements whose element (i, j) is the given one's at the place from(i, j), counted in elements.
template <class From>
StoredTensor rearranged(const StoredTensor& tensor, Index rows, Index cols, const From& from) {
  tensor.check_bytes("rearranged");
  element_count("rearranged", tensor.name, {rows, cols});
  const auto unit = static_cast<std::size_t>(dtype_bits(tensor.dtype) / 8);
  StoredTensor out{tensor.name, tensor.dtype, {rows, cols}, Buffer::allocate(tensor.bytes.size())};
  std::byte* to = out.bytes.mutable_as<std::byte>();
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j, to += unit) std::memcpy(to, tensor.bytes.data() + static_cast<std::size_t>(from(i, j)) * unit, unit);
  return out;
}

/// The transposed matrix, its elements' bytes unchanged.
inline StoredTensor transposed(const StoredTensor& tensor) {
  const Index rows = tensor.shape.at(0), cols = tensor.shape.at(1);
  return rearranged(tensor, cols, rows, [&](Index i, Index j) { return j * cols + i; });
}

/// Rank and scale of most layers become the configuration's, and its target_modules name exactly the layers: by the last part of their
/// paths where `is_complete` (every module with such a name is a layer), else by whole paths.
inline void describe_layers(Adapter& adapter, bool is_complete) {
  std::map<Index, int> ranks;
  std::set<std::string> names;
  for (const auto& [path, layer] : adapter.layers) {
    ++ranks[layer.rank()];
    names.insert(is_complete ? std::string(last_part(path)) : path);
  }
  const auto by_count = [](const auto& a, const auto& b) { return a.second < b.second; };
  adapter.config.rank = std::max_element(ranks.begin(), ranks.end(), by_count)->first;
  std::map<double, int> alphas;
  for (const auto& [path, layer] : adapter.layers) ++alphas[layer.scale * static_cast<double>(layer.rank())];
  adapter.config.alpha = std::max_element(alphas.begin(), alphas.end(), by_count)->first;
  adapter.config.target_modules = std::vector<std::string>(names.begin(), names.end());
}

}  // namespace lowrank::inline LOWRANK_ABI::detail
