#pragma once

#include <algorithm>
#include <numeric>

#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::vector<Index> Sequences::lengths(const char* operation, Index tokens) const {
  if (are_equal()) {
    check<ShapeError>(count_ > 0 && tokens % count_ == 0, operation, tokens, " tokens do not divide into ", count_,
                      " sequences of equal length");
    return std::vector<Index>(static_cast<std::size_t>(count_), tokens / count_);
  }
  const bool are_positive = std::all_of(lengths_.begin(), lengths_.end(), [](Index length) { return length > 0; });
  const Index sum = are_positive ? std::accumulate(lengths_.begin(), lengths_.end(), Index{0}) : 0;
  check<ShapeError>(are_positive, operation, "one of ", count_, " sequences has no token; leave it out");
  check<ShapeError>(sum == tokens, operation, "the lengths of ", count_, " sequences sum to ", sum, " for ", tokens,
                    " tokens; give each token to one sequence");
  return lengths_;
}

LOWRANK_INLINE std::vector<Index> Sequences::positions(const char* operation, Index tokens, Index start) const {
  std::vector<Index> positions;
  positions.reserve(static_cast<std::size_t>(tokens));
  for (const Index length : lengths(operation, tokens))
    for (Index i = 0; i < length; ++i) positions.push_back(start + i);
  return positions;
}

}  // namespace lowrank::inline LOWRANK_ABI
