#pragma once

#include <cstdint>

#include <lowrank/cuda/kernels/product_tiles.hpp>
#include <lowrank/cuda/kernels/wgmma.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A block's share of a product on wgmma: 128 rows × 64 or 128 tokens, over depths of 64; a warpgroup takes 64 rows and all tokens.
/// Two blocks fit a multiprocessor with codes of 4 or 8 bits. 256 tokens, one block, were slower at every size (H200).
template <int Tokens>
struct WgmmaTile {
  static constexpr int rows = 128, tokens = Tokens, depth = 64, threads = 2 * warpgroup_size, stages = 3;
  static_assert(Tokens == 64 || Tokens == 128, "widths that DeviceThread::wgmma has");

  static constexpr int word(int row, int part, int height, int) { return swizzled_word(row, part, height); }
};

/// What ProductMany does, on the tensor cores' asynchronous products of sm_90a: both factors are read from shared memory.
///
/// All warps do everything: while the tensor cores multiply tile k, they start the copies of a later tile and decode tile k + 1, into the
/// other one of two left tiles.
///
///   iteration k   barrier │ wgmma k queued │ copies of k + stages − 1 │ decode k + 1 ──► left (k + 1) % 2 │ wait for wgmma k
///
/// The wait is for all products, as sums that stay under way around a loop make ptxas serialize it. Grid as ProductMany's.
template <int Bits, bool Transposed, class Tile>
struct ProductWgmma : ProductTiles<Bits, Transposed, Tile> {
  using Tiles = ProductTiles<Bits, Transposed, Tile>;
  using Tiles::product;
  using typename Tiles::Place;
  static constexpr bool needs_wgmma = true;
  static constexpr int most_threads = Tile::threads, stages = Tile::stages;
  static constexpr int left_words = Tile::rows * Tile::depth / 8, slab_bytes = 64 * swizzle_row_bytes;

  struct Shared {
    Word4 left[2][left_words];
    Word4 right[stages][Tile::tokens * Tile::depth / 8];
    typename Tiles::Codes codes[stages];
    float table[16];
  };
  static_assert(sizeof(Shared) + swizzle_slack <= 227 * 1024, "what a block of sm_90 may have");
  static_assert(sizeof(Shared::left[0]) % swizzle_pattern_bytes == 0 && sizeof(Shared::right[0]) % swizzle_pattern_bytes == 0);
  using Sums = float[Tile::tokens / 2];

  LaunchShape shape() const { return this->shape_of(sizeof(Shared) + swizzle_slack); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = swizzled_shared_as<Shared>(t);
    const Place at = this->place(t);
    if (t.thread() < 16) s.table[t.thread()] = product.base.table[t.thread()];
    t.sync();
    Sums sums = {};
    ChunkScale by[Tiles::of_thread];
    LOWRANK_CUDA_UNROLL
    for (int ahead = 0; ahead + 1 < stages; ++ahead) this->fetch_tile(t, s, at, at.first + ahead);
    this->read_scales(t, at, at.first, by);
    t.wait(Pending<stages - 2>{});
    this->decode_tile(t, s, at, at.first, by);
    this->read_scales(t, at, at.first + 1, by);
    for (int tile = at.first; tile < at.last; ++tile) {
      t.fence_async();
      t.sync();  // tile lies in shared memory, and nobody multiplies tile − 1 any more
      multiply(t, s, at, tile, sums);
      this->fetch_tile(t, s, at, tile + stages - 1);
      t.wait(Pending<stages - 2>{});  // this thread's copies of tile + 1 have landed
      this->decode_tile(t, s, at, tile + 1, by);
      this->read_scales(t, at, tile + 2, by);
      t.wgmma_wait(sums);
    }
    store(t, at, sums);
  }

 private:
  /// Queues a tile's products. The left tile is two slabs of 64 rows, one a warpgroup: K-major, or transposed M-major.
  template <class Simt>
  LOWRANK_DEVICE void multiply(Simt& t, const Shared& s, const Place& at, int tile, Sums& sums) const {
    const auto slab = static_cast<std::uint32_t>(t.thread() / warpgroup_size * slab_bytes);
    const std::uint32_t left = t.shared_address(s.left[(tile - at.first) % 2]) + slab;
    const std::uint32_t right = t.shared_address(s.right[(tile - at.first) % stages]);
    if (this->depth_of(at, tile) > 16)
      queue<Tile::depth>(t, left, right, sums);
    else
      queue<16>(t, left, right, sums);  // a rank of 16 costs 16 columns
  }

  template <int Depth, class Simt>
  LOWRANK_DEVICE void queue(Simt& t, std::uint32_t left, std::uint32_t right, Sums& sums) const {
    t.wgmma_fence();
    LOWRANK_CUDA_UNROLL
    for (std::uint32_t k = 0; k < Depth; k += 16) {
      t.template wgmma<Transposed>(sums,
                                   matrix_descriptor(left + k * (Transposed ? swizzle_row_bytes : 2), slab_bytes, swizzle_pattern_bytes),
                                   matrix_descriptor(right + k * 2, slab_bytes, swizzle_pattern_bytes));
    }
    t.wgmma_commit();
  }

  template <class Simt>
  LOWRANK_DEVICE void store(Simt& t, const Place& at, const Sums& sums) const {
    const int row = at.row + t.thread() / warpgroup_size * 64;
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < Tile::tokens / 2; ++i) {
      const int column = wgmma_column(t.thread(), i);
      if (column < at.tokens) store_output(product, t.block_z(), row + wgmma_row(t.thread(), i), at.token + column, sums[i]);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
