#pragma once

/// Sizes that are multiplied: counts that notice overflow, and the one check of a shape that comes from outside.

#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Product of two sizes that are not negative, or nothing when it exceeds Index.
constexpr std::optional<Index> checked_product(Index a, Index b) {
  if (a != 0 && b > std::numeric_limits<Index>::max() / a) return std::nullopt;
  return a * b;
}

/// Product of all sizes of a shape, or nothing when it exceeds Index or a size is negative; 1 for the empty shape.
constexpr std::optional<Index> checked_count(std::span<const Index> shape) {
  // A zero anywhere makes the product zero, but sizes that overflow beside it are refused all the same.
  std::optional<Index> count = 1;
  bool empty = false;
  for (const Index size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) empty = true;
    if (size != 0 && count) count = checked_product(*count, size);
  }
  return count && empty ? std::optional<Index>(0) : count;
}

/// A shape as text: [16, 64].
std::string shape_text(std::span<const Index> shape);

/// Number of elements of a shape; 1 for the empty one.
///
/// Throws ShapeError, with `what` as the name of what has it, for a size below `least` and for more numbers than memory can hold.
Index element_count(std::string_view operation, std::string_view what, std::span<const Index> shape, Index least = 0);
inline Index element_count(std::string_view operation, std::string_view what, std::initializer_list<Index> shape, Index least = 0) {
  return element_count(operation, what, std::span<const Index>(shape.begin(), shape.size()), least);
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/core/shape.inl>
#endif
