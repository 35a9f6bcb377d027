#pragma once

/// Few tokens times a transposed matrix: its stored rows are read once, in the order in which they lie, and each is added to the result
/// by the token's number. Panels would be filled across the rows, which for few tokens costs far more than the product.

#include <algorithm>
#include <span>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/kernels/driver/few_tokens.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {

struct TransposedRows {};

inline constexpr Index few_transposed_tokens = 4;  ///< measured: from eight on panels are no slower

/// Whether stored rows are what a product should read: of a matrix in memory, unless the target packs transposed blocks by itself.
inline bool reads_stored_rows(const Target& target, const Piece& piece) {
  using Kind = WeightView::Kind;
  const Kind kind = piece.weight.kind();
  if (!piece.transposed || kind == Kind::fp64 || kind == Kind::other) return false;
  return kind != Kind::blocks || target.fp32.pack_blocks_transposed == nullptr;
}

/// Adds what a piece gives for rows [row, row + rows) of the product, of which it has all; x is [tokens][depth].
inline void add_transposed(const Target& target, const Piece& piece, Index row, Index rows, const float* x, Index depth, Index tokens,
                           float* y, Index ldy) {
  constexpr Index height = 16;  // stored rows at a time, which stay in the first cache for all tokens
  const Index stride = piece.weight.stride();
  float* const buffer = Scratch<TransposedRows>::get<float>(height * rows);
  for (Index k = 0; k < piece.length; k += height) {
    const Index count = std::min(height, piece.length - k), col = row - piece.row;
    const bool in_place = piece.weight.kind() == WeightView::Kind::fp32;
    const float* const stored = in_place ? static_cast<const float*>(piece.weight.data()) + k * stride + col : buffer;
    if (!in_place) decode(target, piece.weight, k, count, col, rows, buffer, rows);
    for (Index t = 0; t < tokens; ++t) {
      alignas(64) float weights[height];
      for (Index j = 0; j < count; ++j) weights[j] = piece.scale * x[t * depth + piece.depth + k + j];
      target.elementwise.float_rows.add_weighted(stored, in_place ? stride : rows, count, weights, count, 1, rows, y + t * ldy + row);
    }
  }
}

}  // namespace detail

/// Y = source · X for at most four tokens and a source whose parts are all transposed; false when it is none, and nothing was done.
///
/// Each element is one chain of multiply-adds in the order of depth, as in the packed product in fp32. Numbers are not rounded to bfloat16,
/// whatever options.compute says, as with multiply_few for so few tokens.
inline bool multiply_few_transposed(const Pieces& source, std::span<const Columns> x, Index tokens, float* y, Index ldy,
                                    const Options& options) {
  const Target& target = current_target();
  if (tokens > detail::few_transposed_tokens || source.depth() == 0 || options.batch_invariant || BatchInvariant::is_on()) return false;
  for (const Piece& piece : source)
    if (!detail::reads_stored_rows(target, piece)) return false;
  const PhaseScope scope(Phase::product);
  const Columns numbers = detail::stack(x, source.depth(), tokens);
  const auto strip = [&](Index begin, Index end) {
    for (Index t = 0; t < tokens && !options.accumulate; ++t) std::fill(y + t * ldy + begin, y + t * ldy + end, 0.0f);
    for (const Piece& piece : source) {
      const Index top = std::max(begin, piece.row), bottom = std::min(end, piece.row + piece.rows);
      if (top < bottom) detail::add_transposed(target, piece, top, bottom - top, numbers.data, source.depth(), tokens, y, ldy);
    }
    detail::finish(options, begin, end - begin, tokens, y + begin, ldy);
  };
  const Index threads = thread_count(), width = std::clamp<Index>(source.rows() / (4 * threads) / 64 * 64, 64, 512);
  if (threads == 1 || source.rows() * source.depth() * tokens < (Index{1} << 17)) {
    for (Index begin = 0; begin < source.rows(); begin += width) strip(begin, std::min(begin + width, source.rows()));
  } else {
    parallel_ranges(source.rows(), width, strip);
  }
  return true;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
LOWRANK_IEEE_END
