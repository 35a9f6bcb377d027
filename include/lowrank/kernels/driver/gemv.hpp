#pragma once

/// Few tokens, where memory is the bound: each row of weights is read once, in its stored form, and multiplied with all tokens.

#include <bit>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/driver/dispatch.hpp>
#include <lowrank/kernels/driver/pack.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// What happens to a product P = source · X [rows, tokens]: Y = row_scale ∘ (P + Y if accumulate) + bias.
struct Options {
  Compute compute = Compute::fp32;
  bool accumulate = false;
  const float* row_scale = nullptr;  ///< [rows]: each row's factor
  const float* bias = nullptr;       ///< [rows]: added to each token
  bool batch_invariant = false;      ///< a token's bits do not depend on how many others there are: few
                                     ///< tokens take the packed path too
};

inline constexpr Index few_tokens = 8;

namespace detail {

inline void finish(const Options& options, Index row, Index rows, Index columns, float* y, Index ldy) {
  for (Index j = 0; j < columns; ++j) {
    float* out = y + j * ldy;
    if (options.row_scale != nullptr)
      for (Index i = 0; i < rows; ++i) out[i] *= options.row_scale[row + i];
    if (options.bias != nullptr)
      for (Index i = 0; i < rows; ++i) out[i] += options.bias[row + i];
  }
}

/// Whether the kernels for few tokens can read a piece as it lies.
inline bool is_streamable(const Piece& piece) {
  if (piece.transposed || piece.kind == Piece::Kind::other) return false;
  if (piece.kind != Piece::Kind::blocks) return true;
  const BlockSource& s = piece.blocks;
  const auto is_power = [](Index n) { return std::has_single_bit(static_cast<std::size_t>(n)); };
  if (!s.rows_hold_whole_groups() || s.group < 32 || !is_power(s.group) || s.pitch % 32 != 0) return false;
  return s.order == CodeOrder::nibble_pairs || (is_power(s.block) && (s.order == CodeOrder::bytes || s.run == 16 || s.run == 32));
}

struct ArrangedTokens {};

/// The activations in the order in which a piece's codes unpack, in float and in what the arithmetic needs.
class Arranged {
 public:
  Arranged(const KernelTable& table, const Pieces& pieces, std::span<const Columns> x, Index tokens, Compute compute) {
    tokens_ = tokens == 1 ? 1 : tokens <= 4 ? 4 : 8;
    Index floats = 0;
    for (const Piece& p : pieces) floats += ceil_div(p.length, 32) * 32 * tokens_;
    auto* memory = Scratch<ArrangedTokens>::get<float>(floats * 2 + floats / 32 * 3 + 16 * pieces.size() + 64);
    const bool brain = compute == Compute::bf16 && table.to_bfloat16 != nullptr && tokens > 4;
    const bool bytes = compute == Compute::int8 && table.to_int8 != nullptr;
    Index i = 0;
    for (const Piece& p : pieces) {
      FewTokens& f = products_[static_cast<std::size_t>(i)];
      const bool pairs = p.kind == Piece::Kind::blocks && p.blocks.order == CodeOrder::nibble_pairs;
      if (const FewTokens* same = find(pieces, i, p, pairs)) {
        f = *same;
      } else {
        f = FewTokens{};
        f.chunks = ceil_div(p.length, 32);
        memory = arrange(table, x, p, tokens, pairs, f, memory);
        if (brain || (bytes && p.kind == Piece::Kind::blocks)) memory = narrow(table, brain, f, memory);
      }
      f.piece = &p;
      f.tokens = tokens;
      ++i;
    }
  }
  const FewTokens& operator[](Index piece) const { return products_[static_cast<std::size_t>(piece)]; }

 private:
  /// The tokens of a piece and the sums of their chunks, in float; gives the memory behind them.
  float* arrange(const KernelTable& table, std::span<const Columns> x, const Piece& p, Index tokens, bool pairs, FewTokens& f,
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
    for (Index c = 0; c < f.chunks; ++c) sums[c] = table.elementwise.sum(f.x + 32 * c, 32);
    f.x_sum = sums;
    return sums + round_up(f.chunks, 16);
  }

  /// The same as bfloat16, or in 8 bits.
  float* narrow(const KernelTable& table, bool brain, FewTokens& f, float* memory) const {
    const Index count = f.chunks * 32 * tokens_;
    if (brain) {
      auto* to = reinterpret_cast<std::uint16_t*>(memory);
      table.to_bfloat16(f.x, count, to);
      f.brain = to;
      return memory + count / 2;
    }
    auto* to = reinterpret_cast<std::int8_t*>(memory);
    float* scale = memory + count / 4;
    table.to_int8(f.x, count / 32, to, scale, scale + count / 32);
    f.q = to;
    f.q_scale = scale;
    f.q_sum = scale + count / 32;
    return scale + count / 16;
  }

  /// An earlier piece with the same activations in the same order: pieces side by side along the rows share them.
  const FewTokens* find(const Pieces& pieces, Index count, const Piece& p, bool pairs) const {
    for (Index i = 0; i < count; ++i) {
      const Piece& q = pieces.begin()[i];
      const bool q_pairs = q.kind == Piece::Kind::blocks && q.blocks.order == CodeOrder::nibble_pairs;
      if (q.depth == p.depth && q.length == p.length && pairs == q_pairs &&
          (q.kind == Piece::Kind::blocks) == (p.kind == Piece::Kind::blocks))
        return &products_[static_cast<std::size_t>(i)];
    }
    return nullptr;
  }

  static void gather(std::span<const Columns> parts, Index token, Index depth, Index length, float* to) {
    Index begin = 0;
    for (const Columns& part : parts) {
      const Index from = std::max(depth, begin), end = std::min(depth + length, begin + part.depth);
      for (Index k = from; k < end && part.turned; ++k) to[k - depth] = part.data[(k - begin) * part.stride + token];
      if (from < end && !part.turned) std::copy_n(part.data + token * part.stride + from - begin, end - from, to + from - depth);
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
  const KernelTable& table = current_table();
  auto kernel = options.compute == Compute::fp32   ? table.few_tokens
                : options.compute == Compute::bf16 ? table.few_tokens_bf16
                                                   : table.few_tokens_int8;
  if (kernel == nullptr || tokens > few_tokens || source.depth() == 0) return false;
  if (options.batch_invariant || BatchInvariant::is_on()) return false;
  for (const Piece& piece : source)
    if (!detail::is_streamable(piece)) return false;

  const detail::Arranged arranged(table, source, x, tokens, options.compute);
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
