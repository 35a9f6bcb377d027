#pragma once

/// Few tokens, where memory is the bound: each row of weights is read once, in its stored form, and multiplied with all tokens.

#include <algorithm>
#include <span>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/kernels/driver/few_tokens_arranged.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {

/// Whether the kernels for few tokens can read a piece as it lies.
inline bool is_streamable(const Piece& piece) {
  using Kind = WeightView::Kind;
  const Kind kind = piece.weight.kind();
  if (piece.transposed || kind == Kind::fp64 || kind == Kind::other) return false;
  return kind != Kind::blocks || few::can_stream(piece.weight.blocks());
}

struct LastRow {};

/// A row of nibble pairs that ends in the last chunk, where the matrix ends inside it: the kernel reads it from a copy that ends with the
/// chunk, with a scale a chunk.
inline void multiply_last_row(Target::Multiply kernel, FewTokens product) {
  const BlockSource& whole = product.weight->blocks();
  const Index begin = product.row * whole.pitch / 32 * 32, end = (product.row + 1) * whole.pitch;
  auto* scales = Scratch<LastRow>::get<float>(product.chunks * (1 + 4));
  auto* codes = reinterpret_cast<std::byte*>(scales + product.chunks);
  for (Index c = 0; c < product.chunks; ++c) {
    float no_offset;
    whole.read_scales(whole, (begin + 32 * c) / whole.group, 1, scales + c, &no_offset);
  }
  const Index bytes = ceil_div(end - begin, 2);
  std::copy_n(whole.data + begin / 2, bytes, codes);
  std::fill(codes + bytes, codes + product.chunks * 16, std::byte{0});
  BlockSource row = whole;
  row.data = codes, row.row_count = 1, row.pitch = product.chunks * 32, row.group = 32;
  row.read_scales = ArrayScales::read, row.scales = reinterpret_cast<const std::byte*>(scales);
  const WeightView view(row);
  product.weight = &view;
  product.row = 0, product.rows = 1;
  kernel(product);
}

/// The first of those rows.
inline Index rows_of_whole_chunks(const WeightView& weight) {
  if (weight.kind() != WeightView::Kind::blocks || weight.blocks().order != CodeOrder::nibble_pairs) return weight.rows();
  const Index pitch = weight.blocks().pitch, elements = weight.rows() * pitch;
  return elements % 32 == 0 ? weight.rows() : elements / 32 * 32 / pitch;
}

/// Rows [top, bottom) of a piece; y is where row `top` goes.
inline void multiply_rows(Target::Multiply kernel, const Arranged& arranged, const Piece& piece, Index index, Index top, Index bottom,
                          float* y, Index ldy, bool accumulate) {
  const Index phases = Phases(piece).count, whole = std::max(top, std::min(bottom, rows_of_whole_chunks(piece.weight)));
  const auto product_of = [&](Index row, Index begin, Index rows) {
    FewTokens product = arranged.tokens_of(piece, index, row);
    product.row = begin, product.rows = rows;
    product.y = y + (begin - top), product.ldy = ldy;
    product.accumulate = accumulate;
    return product;
  };
  if (whole > top) {
    FewTokens product = product_of(top, top, whole - top), each[32];
    if (phases > 1) {
      for (Index i = 0; i < phases; ++i) each[i] = product_of(top + i, top, whole - top), each[i].phases = phases;
      product.phases = phases, product.phase = each;
    }
    kernel(product);
  }
  for (Index row = whole; row < bottom; ++row) multiply_last_row(kernel, product_of(row, row, 1));
}

}  // namespace detail

/// Y = source · X for at most few_tokens tokens; false when the target or the source has no such path, and nothing was done.
inline bool multiply_few(const Pieces& source, std::span<const Columns> x, Index tokens, float* y, Index ldy, const Options& options) {
  const Target& target = current_target();
  auto kernel = options.compute == Compute::fp32   ? target.few_tokens
                : options.compute == Compute::bf16 ? target.few_tokens_bf16
                                                   : target.few_tokens_int8;
  if (kernel == nullptr || tokens > few_tokens || source.depth() == 0) return false;
  if (options.batch_invariant || BatchInvariant::is_on()) return false;
  for (const Piece& piece : source)
    if (!detail::is_streamable(piece)) return false;

  const PhaseScope scope(Phase::product);
  const detail::Arranged arranged(target, source, x, tokens, options.compute);
  const auto block = [&](Index row, Index rows) {
    for (const bool is_first : {true, false}) {  // each row has one piece at depth 0, which begins the sum
      Index index = -1;
      for (const Piece& piece : source) {
        ++index;
        const Index top = std::max(row, piece.row), bottom = std::min(row + rows, piece.row + piece.rows);
        if ((piece.depth == 0) != is_first || top >= bottom || piece.length == 0) continue;
        detail::multiply_rows(kernel, arranged, piece, index, top - piece.row, bottom - piece.row, y + top, ldy,
                              !is_first || options.accumulate);
      }
    }
    detail::finish(options, row, rows, tokens, y + row, ldy);
  };
  const Index work = source.rows() * source.depth() * (tokens + 1) / 2, threads = thread_count();
  if (threads == 1 || work < (Index{1} << 17)) {
    block(0, source.rows());
    return true;
  }
  Index together = 4;
  for (const Piece& piece : source) together = std::max(together, 4 * detail::Phases(piece).count);
  const Index grain = std::clamp<Index>(source.rows() / (8 * threads) / together * together, together, 256);
  parallel_shares(source.rows(), grain, [&](Index begin, Index end) { block(begin, end - begin); });
  return true;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
LOWRANK_IEEE_END
