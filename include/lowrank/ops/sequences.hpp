#pragma once

#include <utility>
#include <vector>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Sequences that lie one after the other along the tokens: so many of equal length, or each of a length of its own, with a wall before the
/// next. Attention and positions begin anew with each.
///
///   Sequences three = 3;                                // T / 3 tokens each
///   auto texts = Sequences::with_lengths({12, 5, 40});  // T = 57
class Sequences {
 public:
  Sequences(Index count = 1) : count_(count) {}
  static Sequences with_lengths(std::vector<Index> lengths) {
    Sequences sequences(static_cast<Index>(lengths.size()));
    sequences.lengths_ = std::move(lengths);
    return sequences;
  }

  Index count() const { return count_; }
  /// Whether they are so many of equal length, whatever the tokens.
  bool are_equal() const { return lengths_.empty(); }

  /// The length of each, of so many tokens in all. Throws ShapeError, in the operation's name, where these do not divide into the
  /// sequences.
  std::vector<Index> lengths(const char* operation, Index tokens) const;
  /// The position of each token in its sequence, from `start` on.
  std::vector<Index> positions(const char* operation, Index tokens, Index start = 0) const;

  friend bool operator==(const Sequences&, const Sequences&) = default;

 private:
  Index count_;
  std::vector<Index> lengths_ = {};
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/sequences.inl>
#endif
