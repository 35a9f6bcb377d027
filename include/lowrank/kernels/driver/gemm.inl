#pragma once

#include <algorithm>

#include <lowrank/kernels/driver/few_tokens.hpp>
#include <lowrank/kernels/driver/few_tokens_transposed.hpp>
#include <lowrank/kernels/driver/loops.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Y = source · X by packed panels, for any number of tokens; see multiply.
inline void multiply_packed(const Pieces& source, std::span<const Columns> x, Index tokens, float* y, Index ldy, const Options& options) {
  const Target& target = current_target();
  const PanelKernels& kernels = panel_kernels(target, options.compute);
  Columns whole;
  for (Index i = 0, depth = 0; i < static_cast<Index>(x.size()); depth += x[static_cast<std::size_t>(i++)].depth) {
    if (depth % kernels.grain == 0) continue;
    whole = detail::stack(x, source.depth(), tokens);
    x = std::span<const Columns>(&whole, 1);
    break;
  }
  const detail::Blocking blocking(kernels, source.rows(), source.depth(), tokens);
  // A very deep activation, such as the gradient of logits, is packed a part at a time: 8 blocks of its depth.
  const Index chunk = x.size() == 1 ? 8 * blocking.depth : source.depth();
  const Index token_words = round_up(std::min(chunk, source.depth()), kernels.grain) / kernels.unit * kernels.columns;
  for (Index begin = 0; begin < tokens; begin += blocking.token_slice) {
    const Index count = std::min(blocking.token_slice, tokens - begin);
    Word* panels = Scratch<detail::PackedTokens>::get<Word>(ceil_div(count, kernels.columns) * token_words + 16);
    Index depth = 0;
    do {
      const Index end = std::min(depth + chunk, source.depth());
      Columns part = x.front();
      if (x.size() == 1) part.data += depth * (part.transposed ? part.stride : 1), part.depth = end - depth;
      detail::pack_panels(kernels, x.size() == 1 ? std::span<const Columns>(&part, 1) : x, begin, count, panels, token_words,
                          blocking.parallel);
      detail::Product{target, kernels, source, panels, token_words, y + begin * ldy, ldy, options, blocking, depth, end}.run(count);
      depth = end;
    } while (depth < source.depth());
  }
}

LOWRANK_INLINE void multiply_through(const Pieces& down, const Pieces& up, std::span<const Columns> x, Index tokens, float* hy, Index ldy,
                                     Compute compute) {
  if (down.rows() == 0 || tokens == 0 || multiply_few_through(down, up, x, tokens, hy, ldy, compute)) return;
  multiply(down, x, tokens, hy, ldy, {.compute = compute});
  const Columns hidden{hy, ldy, up.depth()};
  if (up.depth() > 0) multiply(up, std::span(&hidden, 1), tokens, hy + up.depth(), ldy, {.compute = compute, .accumulate = true});
}

LOWRANK_INLINE void multiply(const Pieces& pieces, std::span<const Columns> x, Index tokens, float* y, Index ldy, const Options& options) {
  if (pieces.rows() == 0 || tokens == 0) return;
  if (multiply_few(pieces, x, tokens, y, ldy, options) || multiply_few_transposed(pieces, x, tokens, y, ldy, options)) return;
  multiply_packed(pieces, x, tokens, y, ldy, options);
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
