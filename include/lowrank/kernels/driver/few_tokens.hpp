#pragma once

/// Few tokens, where memory is the bound: each row of weights is read once, in its stored form, and multiplied with all tokens.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/kernels/driver/packing.hpp>
#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/kernels/target/few.hpp>

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

struct ArrangedTokens {};

/// The activations in the order in which a piece's codes unpack, in float and in what the arithmetic needs.
class Arranged {
 public:
  Arranged(const Target& target, const Pieces& pieces, std::span<const Columns> x, Index tokens, Compute compute) {
    tokens_ = tokens == 1 ? 1 : tokens <= 4 ? 4 : 8;
    Index floats = 0;
    for (const Piece& p : pieces) floats += ceil_div(p.length, 32) * 32 * tokens_;
    auto* memory = Scratch<ArrangedTokens>::get<float>(floats * 2 + floats / 32 * 3 + 16 * pieces.size() + 64);
    const bool brain = compute == Compute::bf16 && target.to_bfloat16 != nullptr && tokens > 4;
    const bool bytes = compute == Compute::int8 && target.to_int8 != nullptr;
    Index i = 0;
    for (const Piece& p : pieces) {
      FewTokens& f = products_[static_cast<std::size_t>(i)];
      const bool pairs = has_pairs(p);
      if (const FewTokens* same = find(pieces, i, p, pairs)) {
        f = *same;
      } else {
        f = FewTokens{};
        f.chunks = ceil_div(p.length, 32);
        memory = arrange(target, x, p, tokens, pairs, f, memory);
        if (brain || (bytes && has_blocks(p))) memory = narrow(target, brain, f, memory);
      }
      f.weight = &p.weight;
      f.factor = p.scale;
      f.tokens = tokens;
      ++i;
    }
  }
  const FewTokens& operator[](Index piece) const { return products_[static_cast<std::size_t>(piece)]; }

 private:
  /// The tokens of a piece and the sums of their chunks, in float; gives the memory behind them.
  float* arrange(const Target& target, std::span<const Columns> x, const Piece& p, Index tokens, bool pairs, FewTokens& f,
                 float* memory) const {
    for (Index t = 0; t < tokens_; ++t) {
      float* to = memory + t * f.chunks * 32;
      std::fill_n(to, f.chunks * 32, 0.0f);
      if (t >= tokens) continue;
      gather(x, t, p.depth, p.length, to);
      if (pairs) deinterleave(to, f.chunks);
    }
    f.x = memory;
    float* sums = memory + f.chunks * 32 * tokens_;
    for (Index c = 0; c < f.chunks; ++c) sums[c] = target.elementwise.sum(f.x + 32 * c, 32);
    f.x_sum = sums;
    return sums + round_up(f.chunks, 16);
  }

  /// The same as bfloat16, or in 8 bits.
  float* narrow(const Target& target, bool brain, FewTokens& f, float* memory) const {
    const Index count = f.chunks * 32 * tokens_;
    if (brain) {
      auto* to = reinterpret_cast<std::uint16_t*>(memory);
      target.to_bfloat16(f.x, count, to);
      f.brain = to;
      return memory + count / 2;
    }
    auto* to = reinterpret_cast<std::int8_t*>(memory);
    float* scale = memory + count / 4;
    target.to_int8(f.x, count / 32, to, scale, scale + count / 32);
    f.q = to;
    f.q_scale = scale;
    f.q_sum = scale + count / 32;
    return scale + count / 16;
  }

  /// An earlier piece with the same activations in the same order: pieces side by side along the rows share them.
  const FewTokens* find(const Pieces& pieces, Index count, const Piece& p, bool pairs) const {
    for (Index i = 0; i < count; ++i) {
      const Piece& q = pieces.begin()[i];
      if (q.depth == p.depth && q.length == p.length && has_pairs(q) == pairs && has_blocks(q) == has_blocks(p))
        return &products_[static_cast<std::size_t>(i)];
    }
    return nullptr;
  }

  static bool has_blocks(const Piece& p) { return p.weight.kind() == WeightView::Kind::blocks; }
  static bool has_pairs(const Piece& p) { return has_blocks(p) && p.weight.blocks().order == CodeOrder::nibble_pairs; }

  static void gather(std::span<const Columns> parts, Index token, Index depth, Index length, float* to) {
    Index begin = 0;
    for (const Columns& part : parts) {
      const Index from = std::max(depth, begin), end = std::min(depth + length, begin + part.depth);
      for (Index k = from; k < end && part.transposed; ++k) to[k - depth] = part.data[(k - begin) * part.stride + token];
      if (from < end && !part.transposed) std::copy_n(part.data + token * part.stride + from - begin, end - from, to + from - depth);
      begin += part.depth;
    }
  }

  static void deinterleave(float* x, Index chunks) {
    for (Index c = 0; c < chunks; ++c, x += 32) {
      float odd[16];
      for (Index j = 0; j < 16; ++j) odd[j] = x[2 * j + 1];
      for (Index j = 0; j < 16; ++j) x[j] = x[2 * j];
      std::copy_n(odd, 16, x + 16);
    }
  }

  std::array<FewTokens, Pieces::capacity> products_;
  Index tokens_;
};

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
      Index index = 0;
      for (const Piece& piece : source) {
        FewTokens product = arranged[index++];
        const Index top = std::max(row, piece.row), bottom = std::min(row + rows, piece.row + piece.rows);
        if ((piece.depth == 0) != is_first || top >= bottom || piece.length == 0) continue;
        product.row = top - piece.row;
        product.rows = bottom - top;
        product.y = y + top;
        product.ldy = ldy;
        product.accumulate = !is_first || options.accumulate;
        kernel(product);
      }
    }
    detail::finish(options, row, rows, tokens, y + row, ldy);
  };
  const Index work = source.rows() * source.depth() * (tokens + 1) / 2, threads = thread_count();
  if (threads == 1 || work < (Index{1} << 17)) {
    block(0, source.rows());
    return true;
  }
  const Index grain = std::clamp<Index>(source.rows() / (8 * threads) / 4 * 4, 4, 256);
  parallel_shares(source.rows(), grain, [&](Index begin, Index end) { block(begin, end - begin); });
  return true;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
LOWRANK_IEEE_END
