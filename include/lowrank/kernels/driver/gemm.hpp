#pragma once

/// Products Y = source · X: panels that are packed for many tokens, rows that are streamed for few.

#include <span>

#include <lowrank/kernels/driver/options.hpp>
#include <lowrank/kernels/driver/pieces.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Y = pieces · X for a factor put together from parts, at least one of which begins at depth 0 in every row; see the next.
void multiply(const Pieces& pieces, std::span<const Columns> x, Index tokens, float* y, Index ldy, const Options& options = {});

/// A product and a low-rank update of it: [H ; Y] = down · X, then Y += up · H, for down = [A ; W] and up = B times its scale.
///
/// down [r + rows, depth], up [rows, r]; hy [r + rows, tokens], columns `ldy` apart, gets H above Y. Few tokens take one pass over the
/// memory of all. Cost: 2 tokens ((r + rows) depth + rows r) FLOPs.
void multiply_through(const Pieces& down, const Pieces& up, std::span<const Columns> x, Index tokens, float* hy, Index ldy,
                      Compute compute);

/// Y = source · X: source [rows, depth], X [depth, tokens] stacked from parts, Y [rows, tokens] with a token a column, `ldy` apart.
///
/// options choose the arithmetic and what is done with the product. Compute::int8 rounds as bf16 does where there are more than a few
/// tokens. Y must not overlap X. Throws ShapeError. Cost: 2 rows depth tokens FLOPs, one pass over the source for up to 1024 tokens.
template <Source S>
void multiply(const S& source, std::span<const Columns> x, Index tokens, float* y, Index ldy, const Options& options = {}) {
  Index depth = 0;
  for (const Columns& part : x) depth += part.depth;
  check<ShapeError>(depth == source.cols(), "multiply", "the source is [", source.rows(), ", ", source.cols(), "] but x is [", depth, ", ",
                    tokens, "]; the depth of x must be the columns of the source");
  if (source.rows() == 0 || tokens == 0) return;
  multiply(Pieces(source), x, tokens, y, ldy, options);
}

/// The same for one activation with its tokens `ldx` apart.
template <Source S>
void multiply(const S& source, const float* x, Index ldx, Index tokens, float* y, Index ldy, const Options& options = {}) {
  const Columns part{x, ldx, source.cols()};
  multiply(source, std::span(&part, 1), tokens, y, ldy, options);
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels

#if !defined(LOWRANK_COMPILED)
#include <lowrank/kernels/driver/gemm.inl>
#endif
