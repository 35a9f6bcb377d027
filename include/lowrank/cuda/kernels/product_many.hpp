#pragma once

#include <cstdint>

#include <lowrank/cuda/kernels/product_tiles.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A block's share of a product: rows × tokens, over depths of 64, by row_warps × token_warps warps. Rows of a tile in shared memory are
/// padded by 16 bytes, which makes ldmatrix free of bank conflicts.
template <int Rows, int Tokens, int RowWarps, int TokenWarps>
struct ProductTile {
  static constexpr int rows = Rows, tokens = Tokens, depth = 64;
  static constexpr int row_warps = RowWarps, token_warps = TokenWarps, threads = RowWarps * TokenWarps * warp_size;
  static constexpr int warp_rows = Rows / RowWarps, warp_tokens = Tokens / TokenWarps;
  static_assert(warp_rows % 16 == 0 && warp_tokens % 16 == 0);

  static constexpr int stride(int width) { return width + 8; }
  static constexpr int word(int row, int part, int, int width) { return row * (stride(width) / 8) + part; }
};
using LargeTile = ProductTile<128, 128, 4, 2>;
using MediumTile = ProductTile<128, 64, 4, 2>;
using SmallTile = ProductTile<64, 16, 4, 1>;

/// Y = W X + update · H, or Y = Wᵀ G + updateᵀ · U (Transposed), for many tokens, on tensor cores: bfloat16 factors, sums in fp32.
///
/// Four tiles of the depth are in flight (cuda/kernels/product_tiles.hpp); two left tiles take turns, so that decoding tile k + 1 and
/// multiplying tile k overlap:
///
///   codes k + 1 ──decode──► left (k + 1) % 2        left k % 2 ──ldmatrix──► mma ◄──ldmatrix── right k % 4
///
/// Transposed, ldmatrix.trans turns the left tile. Grid: rows / Tile::rows, tokens / Tile::tokens (or the number of token tiles), splits of
/// the depth.
template <int Bits, bool Transposed, class Tile>
struct ProductMany : ProductTiles<Bits, Transposed, Tile> {
  using Tiles = ProductTiles<Bits, Transposed, Tile>;
  using Tiles::product;
  using typename Tiles::Place;
  static constexpr int most_threads = Tile::threads, stages = 4;
  static constexpr int left_stride = Tile::stride(Tiles::left_width), right_stride = Tile::stride(Tile::depth);
  static constexpr int row_tiles = Tile::warp_rows / 16, token_pairs = Tile::warp_tokens / 16;

  struct Shared {
    typename Tiles::Codes codes[stages];
    Word4 left[2][Tiles::left_height * left_stride / 8];
    Word4 right[stages][Tile::tokens * right_stride / 8];
    float table[16];
  };
  using Sums = float[row_tiles][2 * token_pairs][4];

  LaunchShape shape() const { return this->shape_of(sizeof(Shared)); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    const Place at = this->place(t);
    if (t.thread() < 16) s.table[t.thread()] = product.base.table[t.thread()];
    Sums sums = {};
    ChunkScale by[Tiles::of_thread];
    LOWRANK_CUDA_UNROLL
    for (int ahead = 0; ahead + 1 < stages; ++ahead) this->fetch_tile(t, s, at, at.first + ahead);
    this->read_scales(t, at, at.first, by);
    t.wait(Pending<stages - 2>{});
    t.sync();
    this->decode_tile(t, s, at, at.first, by);
    this->read_scales(t, at, at.first + 1, by);
    for (int tile = at.first; tile < at.last; ++tile) {
      t.wait(Pending<stages - 3>{});  // tile + 1 has landed
      t.sync();                       // for all; and nobody reads tile − 1 any more
      this->fetch_tile(t, s, at, tile + stages - 1);
      this->decode_tile(t, s, at, tile + 1, by);
      this->read_scales(t, at, tile + 2, by);
      multiply(t, s, at, tile, sums);
    }
    store(t, at, sums);
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE void multiply(Simt& t, const Shared& s, const Place& at, int tile, Sums& sums) const {
    const int row = t.warp() % Tile::row_warps * Tile::warp_rows, token = t.warp() / Tile::row_warps * Tile::warp_tokens;
    const auto* const left = reinterpret_cast<const BFloat16*>(s.left[(tile - at.first) % 2]);
    const auto* const right = reinterpret_cast<const BFloat16*>(s.right[(tile - at.first) % stages]) + token * right_stride;
    const int depth = this->depth_of(at, tile);
    LOWRANK_CUDA_UNROLL
    for (int k = 0; k < Tile::depth; k += 16) {
      if (k >= depth) break;  // a rank of 16 costs 16 columns
      std::uint32_t b[token_pairs][2][2];
      LOWRANK_CUDA_UNROLL
      for (int j = 0; j < token_pairs; ++j) load_b(t, b[j], right + 16 * j * right_stride + k, right_stride);
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < row_tiles; ++i) {
        std::uint32_t a[4];
        if constexpr (Transposed)
          load_a_transposed(t, a, left + k * left_stride + row + 16 * i, left_stride);
        else
          load_a(t, a, left + (row + 16 * i) * left_stride + k, left_stride);
        LOWRANK_CUDA_UNROLL
        for (int j = 0; j < 2 * token_pairs; ++j) t.mma(sums[i][j], a, b[j / 2][j % 2]);
      }
    }
  }

  template <class Simt>
  LOWRANK_DEVICE void store(Simt& t, const Place& at, const Sums& sums) const {
    const int row = at.row + t.warp() % Tile::row_warps * Tile::warp_rows + t.lane() / 4;
    const int token = t.warp() / Tile::row_warps * Tile::warp_tokens + t.lane() % 4 * 2;
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < row_tiles; ++i) {
      LOWRANK_CUDA_UNROLL
      for (int j = 0; j < 2 * token_pairs; ++j) {
        LOWRANK_CUDA_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int column = token + 8 * j + e % 2;
          if (column < at.tokens) store_output(product, t.block_z(), row + 16 * i + e / 2 * 8, at.token + column, sums[i][j][e]);
        }
      }
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
