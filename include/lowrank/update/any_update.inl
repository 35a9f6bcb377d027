#pragma once

#include <lowrank/core/tensor.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE Index UpdateSite::size(std::string_view tensor, std::size_t dimension, Index configured) const {
  const auto found = shapes.find(tensor);
  if (found == shapes.end()) return configured;
  const auto& shape = found->second;
  check<ShapeError>(dimension < shape.size() && shape[dimension] == configured, "bind", path, '.', tensor, " is ", shape_text(shape),
                    " but by the configuration its dimension ", dimension, " is ", configured, "; the file contradicts itself");
  return configured;
}

}  // namespace lowrank::inline LOWRANK_ABI
