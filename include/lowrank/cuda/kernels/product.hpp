#pragma once

/// What the two products, for few tokens and for many, have in common.

#include <cstdint>

#include <lowrank/cuda/kernels/chunks.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Activations of a product, [depth, tokens]: token t is the row of bfloat16 at data + t · stride. stride is a multiple of 32, data a
/// multiple of 16 bytes, numbers past the depth are zero up to the next multiple of 32. ToBfloat16 makes one. Behind them a row may have
/// room for another operand's columns: A x lies well behind x, where one plain product reads both (cuda/kernels/slices.hpp).
struct Operand {
  const BFloat16* data = nullptr;
  Index stride = 0;
  int depth = 0;

  /// Numbers of a row that are the operand's own.
  constexpr Index width() const { return round_up(depth, chunk_size); }
};

/// The low-rank columns that a product adds to its base: rows of bfloat16, laid out as an Operand's. For Y = W X + s B H it is s B
/// [out, rank], for dX = Wᵀ G + Aᵀ U it is A [rank, in], read transposed.
struct UpdateFactor {
  const BFloat16* data = nullptr;
  Index stride = 0;
  int depth = 0;  ///< the rank: columns of s B, or rows of A
  int rows = 0;   ///< of s B; not read when transposed
};

/// Neighbouring tokens that share an update; update −1: none.
struct TokenTile {
  int first = 0, count = 0, update = -1;
};

/// Y [rows, tokens] = W X + update · H + bias, or with Wᵀ; columns of Y lie ldy apart.
struct Product {
  ChunkedView base;
  Operand x, h;
  UpdateFactor update;                    ///< of all tokens, when there are no tiles
  const UpdateFactor* updates = nullptr;  ///< of tiles
  const TokenTile* tiles = nullptr;
  int tile_count = 0;
  float* y = nullptr;
  Index ldy = 0;
  int rows = 0, tokens = 0;
  const float* bias = nullptr;  ///< [rows] or null
  bool accumulate = false;
  int splits = 1;  ///< pieces of the depth; each writes a partial sum [splits][tokens][rows] that SumPartials adds in order
  float* partials = nullptr;
};

/// An output in y or among the partial sums.
LOWRANK_DEVICE void store_output(const Product& p, int split, int row, int token, float value) {
  if (row >= p.rows) return;
  if (p.splits > 1) {
    p.partials[(static_cast<Index>(split) * p.tokens + token) * p.rows + row] = value;
    return;
  }
  float& y = p.y[token * p.ldy + row];
  if (p.bias) value += p.bias[row];
  y = p.accumulate ? y + value : value;
}

/// y = Σ partials, in the order of the splits, + bias. A thread an output; grid: outputs / 256.
struct SumPartials {
  static constexpr int most_threads = 256;
  Product product;

  LaunchShape shape() const {
    const Index size = static_cast<Index>(product.rows) * product.tokens;
    return {.x = static_cast<unsigned>(ceil_div(size, most_threads)), .threads = most_threads};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index size = static_cast<Index>(product.rows) * product.tokens;
    const Index i = static_cast<Index>(t.block_x()) * most_threads + t.thread();
    if (i >= size) return;
    float sum = 0;
    for (int split = 0; split < product.splits; ++split) sum += product.partials[split * size + i];
    Product whole = product;
    whole.splits = 1;
    store_output(whole, 0, static_cast<int>(i % product.rows), static_cast<int>(i / product.rows), sum);
  }
};

/// out[i · stride + k] = bfloat16(factor · x[i · ldx + k]) for k < cols, 0 up to the next multiple of 32: an Operand or an UpdateFactor
/// from numbers. A thread four numbers; grid: rows · width / 1024.
struct ToBfloat16 {
  static constexpr int most_threads = 256;
  const float* x = nullptr;
  Index ldx = 0;
  int rows = 0, cols = 0;
  float factor = 1;
  BFloat16* out = nullptr;
  Index stride = 0;

  constexpr Index width() const { return round_up(cols, chunk_size); }
  LaunchShape shape() const { return {.x = static_cast<unsigned>(ceil_div(rows * width() / 4, most_threads)), .threads = most_threads}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const auto [row, four] = divide(static_cast<Index>(t.block_x()) * most_threads + t.thread(), static_cast<int>(width() / 4));
    if (row >= rows) return;
    const int k = 4 * four;
    const Float4 from = load_four(x + row * ldx, k, cols);
    auto* const to = reinterpret_cast<std::uint32_t*>(out + row * stride + k);
    to[0] = bfloat16_pair(factor * from.number[0], factor * from.number[1]);
    to[1] = bfloat16_pair(factor * from.number[2], factor * from.number[3]);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
