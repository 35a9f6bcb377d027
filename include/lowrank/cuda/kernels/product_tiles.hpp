#pragma once

#include <lowrank/cuda/kernels/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// How the two factors of a product come into shared memory, for both kernels of tensor cores.
///
/// The depth runs over the columns of the base, then over those of the update, in tiles of 64: a low-rank layer is one product with r more
/// columns. Codes and activations of a tile come by asynchronous copies; a thread decodes the chunks that it copied into the left tile,
/// rows of bfloat16. Transposed, the tile of W is stored as it is decoded, [depth, rows]. Tile says how large a block's share is and where
/// its words of 16 bytes lie: `Tile::word(row, part, height, width)` for elements 8 part … 8 part + 7 of a row of a tile [height, width].
template <int Bits, bool Transposed, class Tile>
struct ProductTiles {
  static constexpr int words = Bits / 4, tile_depth = Tile::depth;
  static constexpr int left_height = Transposed ? Tile::depth : Tile::rows, left_width = Transposed ? Tile::rows : Tile::depth;
  static constexpr int chunks_across = left_width / chunk_size, chunks = left_height * chunks_across, of_thread = chunks / Tile::threads;
  static_assert(chunks % Tile::threads == 0, "every thread decodes as many chunks");

  /// Codes of a tile of the base.
  using Codes = Word4[chunks][words];
  /// Where a block stands: its first row, its tokens, its tiles of the depth and those of them that are the base's.
  struct Place {
    int row, token, tokens, first, last, base_tiles;
    UpdateFactor update;
  };

  Product product;

 protected:
  LaunchShape shape_of(std::size_t shared_bytes) const {
    const auto token_tiles = product.tiles ? product.tile_count : ceil_div(product.tokens, Tile::tokens);
    return {.x = static_cast<unsigned>(ceil_div(product.rows, Tile::rows)),
            .y = static_cast<unsigned>(token_tiles),
            .z = static_cast<unsigned>(product.splits),
            .threads = Tile::threads,
            .shared_bytes = shared_bytes};
  }

  template <class Simt>
  LOWRANK_DEVICE Place place(Simt& t) const {
    Place at{t.block_x() * Tile::rows, t.block_y() * Tile::tokens, Tile::tokens, 0, 0, 0, product.update};
    if (product.tiles) {
      const TokenTile tile = product.tiles[t.block_y()];
      at.token = tile.first;
      at.tokens = tile.count;
      at.update = tile.update < 0 ? UpdateFactor{} : product.updates[tile.update];
    } else if (product.tokens - at.token < at.tokens) {
      at.tokens = product.tokens - at.token;
    }
    at.base_tiles = (product.x.depth + Tile::depth - 1) / Tile::depth * (product.base.codes != nullptr);
    const int tiles = at.base_tiles + (at.update.depth + Tile::depth - 1) / Tile::depth;
    at.first = static_cast<int>(static_cast<Index>(tiles) * t.block_z() / product.splits);
    at.last = static_cast<int>(static_cast<Index>(tiles) * (t.block_z() + 1) / product.splits);
    return at;
  }

  /// Columns of a tile of the depth that count.
  LOWRANK_DEVICE int depth_of(const Place& at, int tile) const {
    return tile < at.base_tiles ? product.x.depth - tile * Tile::depth : at.update.depth - (tile - at.base_tiles) * Tile::depth;
  }

  /// Starts the copies of a tile into its slot of the kernel's shared memory: codes and right have slots that take turns, left has two.
  template <class Simt, class Shared>
  LOWRANK_DEVICE void fetch_tile(Simt& t, Shared& s, const Place& at, int tile) const {
    const int slot = (tile - at.first) % slots_of<Shared>;
    fetch(t, at, tile, s.codes[slot], s.right[slot]);
  }
  /// Decodes a tile that has landed.
  template <class Simt, class Shared>
  LOWRANK_DEVICE void decode_tile(Simt& t, Shared& s, const Place& at, int tile, const ChunkScale (&by)[of_thread]) const {
    const int count = tile - at.first;
    decode(t, at, tile, s.table, s.codes[count % slots_of<Shared>], by, s.left[count % 2]);
  }

  /// Starts the copies of a tile, as one group, an empty one after the last tile.
  template <class Simt>
  LOWRANK_DEVICE void fetch(Simt& t, const Place& at, int tile, Codes& codes, Word4* right) const {
    if (tile < at.last) {
      const bool is_base = tile < at.base_tiles;
      if (is_base) fetch_codes(t, at, tile, codes);
      const Operand& x = is_base ? product.x : product.h;
      const int depth = (is_base ? tile : tile - at.base_tiles) * Tile::depth;
      constexpr int across = Tile::depth / 8, pieces = Tile::tokens * across / Tile::threads;
      static_assert(pieces * Tile::threads == Tile::tokens * across, "every thread copies as many pieces");
      LOWRANK_CUDA_UNROLL
      for (int n = 0; n < pieces; ++n) {
        const int i = t.thread() + n * Tile::threads;
        const int token = i / across, k = depth + i % across * 8;
        const bool is_inside = token < at.tokens && k < x.width();
        const BFloat16* const from = is_inside ? x.data + (at.token + token) * x.stride + k : x.data;
        t.copy_async(right + Tile::word(token, i % across, Tile::tokens, Tile::depth), from, is_inside ? 16 : 0);
      }
    }
    t.commit();
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

  /// The chunks that this thread copied, or its share of the update, into the left tile.
  template <class Simt>
  LOWRANK_DEVICE void decode(Simt& t, const Place& at, int tile, const float* table, const Codes& codes, const ChunkScale (&by)[of_thread],
                             Word4* left) const {
    if (tile >= at.last) return;
    LOWRANK_CUDA_UNROLL
    for (int n = 0; n < of_thread; ++n) {
      const int index = t.thread() + n * Tile::threads;
      if (tile < at.base_tiles)
        decode_base(chunk_of(at, tile * Tile::depth, index), index, table, codes[index], by[n], left);
      else
        copy_update(at, chunk_of(at, (tile - at.base_tiles) * Tile::depth, index), index, left);
    }
  }

 private:
  template <class Shared>
  static constexpr int slots_of = sizeof(Shared::codes) / sizeof(Codes);

  /// Row and chunk of the left matrix that a tile's chunk is.
  struct Chunk {
    int row, chunk;
  };
  LOWRANK_DEVICE static Chunk chunk_of(const Place& at, int depth, int index) {
    const int down = index / chunks_across, across = index % chunks_across;
    if constexpr (Transposed) return {depth + down, at.row / chunk_size + across};
    return {at.row + down, depth / chunk_size + across};
  }
  /// Where 8 elements of a tile's chunk go.
  LOWRANK_DEVICE static int word_of(int index, int part) {
    return Tile::word(index / chunks_across, index % chunks_across * 4 + part, left_height, left_width);
  }

  template <class Simt>
  LOWRANK_DEVICE void fetch_codes(Simt& t, const Place& at, int tile, Codes& codes) const {
    const ChunkedView& w = product.base;
    LOWRANK_CUDA_UNROLL
    for (int n = 0; n < of_thread; ++n) {
      const int i = t.thread() + n * Tile::threads;
      const Chunk c = chunk_of(at, tile * Tile::depth, i);
      if (c.row >= w.rows || c.chunk >= w.chunks) continue;
      const Word4* const from = w.codes + (static_cast<Index>(c.row) * w.chunks + c.chunk) * words;
      for (int k = 0; k < words; ++k) t.copy_async(&codes[i][k], from + k, 16);
    }
  }

  LOWRANK_DEVICE void decode_base(Chunk c, int index, const float* table, const Word4* codes, ChunkScale by, Word4* left) const {
    const bool is_inside = c.row < product.base.rows && c.chunk < product.base.chunks;
    Word4 chunk[words];
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < words; ++i) chunk[i] = is_inside ? codes[i] : Word4{};
    if (!is_inside) by = {};  // zeros, whatever the table holds
    LOWRANK_CUDA_UNROLL
    for (int part = 0; part < 4; ++part) left[word_of(index, part)] = decode_bfloat16<Bits>(chunk, part, table, by);
  }

  LOWRANK_DEVICE void copy_update(const Place& at, Chunk c, int index, Word4* left) const {
    const UpdateFactor& a = at.update;
    const bool is_inside = c.row < (Transposed ? a.depth : a.rows) && c.chunk * chunk_size < a.stride;
    const Word4* const from = reinterpret_cast<const Word4*>(a.data + (is_inside ? c.row * a.stride + c.chunk * chunk_size : 0));
    for (int part = 0; part < 4; ++part) left[word_of(index, part)] = is_inside ? from[part] : Word4{};
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
