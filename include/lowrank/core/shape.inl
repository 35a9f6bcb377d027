#pragma once

#include <algorithm>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::string shape_text(std::span<const Index> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

LOWRANK_INLINE Index element_count(std::string_view operation, std::string_view what, std::span<const Index> shape, Index least) {
  constexpr Index most = std::numeric_limits<Index>::max() / Index{16};  // a number has 16 bytes at most
  const bool in_range = std::all_of(shape.begin(), shape.end(), [least](Index size) { return size >= least; });
  const auto count = checked_count(shape);
  if (!in_range || !count || *count > most)
    fail<ShapeError>(operation, what, " cannot be ", shape_text(shape), "; each size must be at least ", least,
                     " and all numbers must fit in memory");
  return *count;
}

}  // namespace lowrank::inline LOWRANK_ABI
