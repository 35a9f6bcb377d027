#pragma once

#include <lowrank/cuda/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A block's share of a product: rows × tokens, over depths of 64, by row_warps × token_warps warps.
template <int Rows, int Tokens, int RowWarps, int TokenWarps>
struct ProductTile {
  static constexpr int rows = Rows, tokens = Tokens, depth = 64;
  static constexpr int row_warps = RowWarps, token_warps = TokenWarps, threads = RowWarps * TokenWarps * warp_size;
  static constexpr int warp_rows = Rows / RowWarps, warp_tokens = Tokens / TokenWarps;
  static_assert(warp_rows % 16 == 0 && warp_tokens % 16 == 0);
};
using LargeTile = ProductTile<128, 128, 4, 2>;
using MediumTile = ProductTile<128, 64, 4, 2>;
using SmallTile = ProductTile<64, 16, 4, 1>;

/// Y = W X + adapter · H, or Y = Wᵀ G + adapterᵀ · U (Turned), for many tokens, on tensor cores: bfloat16 factors, sums in fp32.
///
/// The depth runs over the columns of the base, then over those of the adapter, in tiles of 64: a low-rank layer is one product with r more
/// columns. Codes and activations of a tile come by asynchronous copies, four tiles in flight; a thread decodes the chunks that it copied
/// into a tile of bfloat16 in shared memory, two such tiles taking turns, so that decoding tile k + 1 and multiplying tile k overlap:
///
///   codes k + 1 ──decode──► left (k + 1) % 2        left k % 2 ──ldmatrix──► mma ◄──ldmatrix── right k % 4
///
/// Rows are padded by 16 bytes, which makes ldmatrix free of bank conflicts. Turned, the tile of W is stored as it is decoded, [depth,
/// rows], and ldmatrix.trans turns it. Grid: rows / Tile::rows, tokens / Tile::tokens (or the number of token tiles), splits of the depth.
template <int Bits, bool Turned, class Tile>
struct ProductMany {
  static constexpr int most_threads = Tile::threads, stages = 4, words = Bits / 4;
  static constexpr int left_height = Turned ? Tile::depth : Tile::rows, left_width = Turned ? Tile::rows : Tile::depth;
  static constexpr int left_stride = left_width + 8, right_stride = Tile::depth + 8;
  static constexpr int chunks_across = left_width / chunk_size, chunks = left_height * chunks_across, of_thread = chunks / Tile::threads;
  static constexpr int row_tiles = Tile::warp_rows / 16, token_pairs = Tile::warp_tokens / 16;
  static_assert(chunks % Tile::threads == 0, "every thread decodes as many chunks");

  struct Shared {
    Word4 codes[stages][chunks][words];
    Word4 left[2][left_height * left_stride / 8];
    Word4 right[stages][Tile::tokens * right_stride / 8];
    float table[16];
  };
  /// Where a block stands: its first row, its tokens, its tiles of the depth and those of them that are the base's.
  struct Place {
    int row, token, tokens, first, last, base_tiles;
    AdapterView adapter;
  };
  using Sums = float[row_tiles][2 * token_pairs][4];

  Product product;

  LaunchShape shape() const {
    const auto token_tiles = product.tiles ? product.tile_count : ceil_div(product.tokens, Tile::tokens);
    return {.x = static_cast<unsigned>(ceil_div(product.rows, Tile::rows)),
            .y = static_cast<unsigned>(token_tiles),
            .z = static_cast<unsigned>(product.splits),
            .threads = Tile::threads,
            .shared_bytes = sizeof(Shared)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    const Place at = place(t);
    if (t.thread() < 16) s.table[t.thread()] = product.base.table[t.thread()];
    Sums sums = {};
    ChunkScale by[of_thread];
    LOWRANK_CUDA_UNROLL
    for (int ahead = 0; ahead + 1 < stages; ++ahead) fetch(t, s, at, at.first + ahead);
    read_scales(t, at, at.first, by);
    t.wait(Pending<stages - 2>{});
    t.sync();
    decode(t, s, at, at.first, by);
    read_scales(t, at, at.first + 1, by);
    for (int tile = at.first; tile < at.last; ++tile) {
      t.wait(Pending<stages - 3>{});  // tile + 1 has landed
      t.sync();                       // for all; and nobody reads tile − 1 any more
      fetch(t, s, at, tile + stages - 1);
      decode(t, s, at, tile + 1, by);
      read_scales(t, at, tile + 2, by);
      multiply(t, s, at, tile, sums);
    }
    store(t, at, sums);
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE Place place(Simt& t) const {
    Place at{t.block_x() * Tile::rows, t.block_y() * Tile::tokens, Tile::tokens, 0, 0, 0, product.adapter};
    if (product.tiles) {
      const TokenTile tile = product.tiles[t.block_y()];
      at.token = tile.first;
      at.tokens = tile.count;
      at.adapter = tile.adapter < 0 ? AdapterView{} : product.adapters[tile.adapter];
    } else if (product.tokens - at.token < at.tokens) {
      at.tokens = product.tokens - at.token;
    }
    at.base_tiles = (product.x.depth + Tile::depth - 1) / Tile::depth * (product.base.codes != nullptr);
    const int tiles = at.base_tiles + (at.adapter.depth + Tile::depth - 1) / Tile::depth;
    at.first = static_cast<int>(static_cast<Index>(tiles) * t.block_z() / product.splits);
    at.last = static_cast<int>(static_cast<Index>(tiles) * (t.block_z() + 1) / product.splits);
    return at;
  }

  /// Row and chunk of the left matrix that a tile's chunk is.
  struct Chunk {
    int row, chunk;
  };
  LOWRANK_DEVICE static Chunk chunk_of(const Place& at, int depth, int index) {
    const int down = index / chunks_across, across = index % chunks_across;
    if constexpr (Turned) return {depth + down, at.row / chunk_size + across};
    return {at.row + down, depth / chunk_size + across};
  }

  template <class Simt>
  LOWRANK_DEVICE void fetch(Simt& t, Shared& s, const Place& at, int tile) const {
    const int slot = (tile - at.first) % stages;
    if (tile < at.last) {
      const bool is_base = tile < at.base_tiles;
      if (is_base) fetch_codes(t, s, at, tile, slot);
      const Operand& x = is_base ? product.x : product.h;
      const int depth = (is_base ? tile : tile - at.base_tiles) * Tile::depth;
      constexpr int across = Tile::depth / 8;
      for (int i = t.thread(); i < Tile::tokens * across; i += Tile::threads) {
        const int token = i / across, k = depth + i % across * 8;
        const bool is_inside = token < at.tokens && k < x.stride;
        const bfloat16* const from = is_inside ? x.data + (at.token + token) * x.stride + k : x.data;
        t.copy_async(&s.right[slot][token * (right_stride / 8) + i % across], from, is_inside ? 16 : 0);
      }
    }
    t.commit();
  }

  template <class Simt>
  LOWRANK_DEVICE void fetch_codes(Simt& t, Shared& s, const Place& at, int tile, int slot) const {
    const PackedView& w = product.base;
    for (int i = t.thread(); i < chunks; i += Tile::threads) {
      const Chunk c = chunk_of(at, tile * Tile::depth, i);
      if (c.row >= w.rows || c.chunk >= w.chunks) continue;
      const Word4* const from = w.codes + (static_cast<Index>(c.row) * w.chunks + c.chunk) * words;
      for (int k = 0; k < words; ++k) t.copy_async(&s.codes[slot][i][k], from + k, 16);
    }
  }

  /// Scales of the chunks that this thread will decode, so early that their loads are over by then.
  template <class Simt>
  LOWRANK_DEVICE void read_scales(Simt& t, const Place& at, int tile, ChunkScale (&by)[of_thread]) const {
    if (tile >= at.last || tile >= at.base_tiles) return;
    LOWRANK_CUDA_UNROLL
    for (int n = 0; n < of_thread; ++n) {
      const Chunk c = chunk_of(at, tile * Tile::depth, t.thread() + n * Tile::threads);
      if (c.row < product.base.rows && c.chunk < product.base.chunks)
        by[n] = scale_of(product.base, static_cast<Index>(c.row) * product.base.chunks + c.chunk);
    }
  }

  template <class Simt>
  LOWRANK_DEVICE void decode(Simt& t, Shared& s, const Place& at, int tile, const ChunkScale (&by)[of_thread]) const {
    if (tile >= at.last) return;
    LOWRANK_CUDA_UNROLL
    for (int n = 0; n < of_thread; ++n) {
      const int index = t.thread() + n * Tile::threads;
      Word4* const to = s.left[(tile - at.first) % 2] + index / chunks_across * (left_stride / 8) + index % chunks_across * 4;
      if (tile < at.base_tiles)
        decode_base(s, chunk_of(at, tile * Tile::depth, index), s.codes[(tile - at.first) % stages][index], by[n], to);
      else
        copy_adapter(at, chunk_of(at, (tile - at.base_tiles) * Tile::depth, index), to);
    }
  }

  LOWRANK_DEVICE void decode_base(const Shared& s, Chunk c, const Word4* codes, ChunkScale by, Word4* to) const {
    const bool is_inside = c.row < product.base.rows && c.chunk < product.base.chunks;
    LOWRANK_CUDA_UNROLL
    for (int part = 0; part < 4; ++part) {
      Word4 eight{};
      if (is_inside) {
        float weight[8];
        decode_part<Bits>(codes, part, s.table, by, weight);
        for (int j = 0; j < 4; ++j) eight.word[j] = bfloat16_pair(weight[2 * j], weight[2 * j + 1]);
      }
      to[part] = eight;
    }
  }

  LOWRANK_DEVICE void copy_adapter(const Place& at, Chunk c, Word4* to) const {
    const AdapterView& a = at.adapter;
    const bool is_inside = c.row < (Turned ? a.depth : a.rows) && c.chunk * chunk_size < a.stride;
    const Word4* const from = reinterpret_cast<const Word4*>(a.data + (is_inside ? c.row * a.stride + c.chunk * chunk_size : 0));
    for (int part = 0; part < 4; ++part) to[part] = is_inside ? from[part] : Word4{};
  }

  template <class Simt>
  LOWRANK_DEVICE void multiply(Simt& t, const Shared& s, const Place& at, int tile, Sums& sums) const {
    const int row = t.warp() % Tile::row_warps * Tile::warp_rows, token = t.warp() / Tile::row_warps * Tile::warp_tokens;
    const auto* const left = reinterpret_cast<const bfloat16*>(s.left[(tile - at.first) % 2]);
    const auto* const right = reinterpret_cast<const bfloat16*>(s.right[(tile - at.first) % stages]) + token * right_stride;
    const int depth = tile < at.base_tiles ? product.x.depth - tile * Tile::depth : at.adapter.depth - (tile - at.base_tiles) * Tile::depth;
    LOWRANK_CUDA_UNROLL
    for (int k = 0; k < Tile::depth; k += 16) {
      if (k >= depth) break;  // a rank of 16 costs 16 columns
      std::uint32_t b[token_pairs][2][2];
      LOWRANK_CUDA_UNROLL
      for (int j = 0; j < token_pairs; ++j) load_b(t, b[j], right + 16 * j * right_stride + k, right_stride);
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < row_tiles; ++i) {
        std::uint32_t a[4];
        if constexpr (Turned)
          load_a_turned(t, a, left + k * left_stride + row + 16 * i, left_stride);
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
