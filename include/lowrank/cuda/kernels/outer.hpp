#pragma once

#include <cstdint>

#include <lowrank/cuda/kernels/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// C [rows, cols] (row-major) = scale · Σₜ L(·, t) R(·, t)ᵀ, or added to it: the gradients of the factors, dA = U Xᵀ and dB = s G Hᵀ.
///
/// L and R are Operands, so that the depth, the tokens, runs down the rows of both; ldmatrix.trans turns them. Tokens come 32 at a time by
/// asynchronous copies, three tiles in flight, and are summed in order; `splits` pieces of them give partial sums [splits][rows][cols] that
/// SumOuter adds in order. Grid: cols / 64, rows / 64, splits; 4 warps, each 32 × 32.
struct OuterProduct {
  static constexpr int most_threads = 128, tile = 64, depth = 32, stages = 3, stride = tile + 8;
  struct Shared {
    Word4 left[stages][depth * stride / 8], right[stages][depth * stride / 8];
  };
  Operand left, right;
  int tokens = 0;
  float scale = 1;
  float* c = nullptr;
  bool accumulate = false;
  int splits = 1;
  float* partials = nullptr;

  constexpr int rows() const { return left.depth; }
  constexpr int cols() const { return right.depth; }
  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(ceil_div(cols(), tile)),
            .y = static_cast<unsigned>(ceil_div(rows(), tile)),
            .z = static_cast<unsigned>(splits),
            .threads = most_threads,
            .shared_bytes = sizeof(Shared)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    const int tiles = (tokens + depth - 1) / depth;
    const int begin = static_cast<int>(static_cast<Index>(tiles) * t.block_z() / splits);
    const int end = static_cast<int>(static_cast<Index>(tiles) * (t.block_z() + 1) / splits);
    float sums[2][4][4] = {};
    for (int ahead = 0; ahead + 1 < stages; ++ahead) fetch(t, s, begin, begin + ahead, end);
    for (int at = begin; at < end; ++at) {
      t.wait(Pending<stages - 2>{});
      t.sync();
      fetch(t, s, begin, at + stages - 1, end);
      multiply(t, s, (at - begin) % stages, sums);
    }
    store(t, sums);
  }

  LOWRANK_DEVICE void store_element(int split, int row, int col, float value) const {
    if (row >= rows() || col >= cols()) return;
    const Index i = static_cast<Index>(row) * cols() + col;
    if (splits > 1)
      partials[static_cast<Index>(split) * rows() * cols() + i] = value;
    else
      c[i] = accumulate ? c[i] + scale * value : scale * value;
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE void fetch(Simt& t, Shared& s, int begin, int at, int end) const {
    if (at < end) {
      const int slot = (at - begin) % stages;
      fetch_side(t, left, t.block_y() * tile, at * depth, s.left[slot]);
      fetch_side(t, right, t.block_x() * tile, at * depth, s.right[slot]);
    }
    t.commit();
  }
  template <class Simt>
  LOWRANK_DEVICE void fetch_side(Simt& t, const Operand& x, int first, int token, Word4* to) const {
    for (int i = t.thread(); i < depth * (tile / 8); i += most_threads) {
      const int row = i / (tile / 8), column = first + i % (tile / 8) * 8;
      const bool is_inside = token + row < tokens && column < x.width();
      t.copy_async(to + row * (stride / 8) + i % (tile / 8), is_inside ? x.data + (token + row) * x.stride + column : x.data,
                   is_inside ? 16 : 0);
    }
  }
  template <class Simt>
  LOWRANK_DEVICE void multiply(Simt& t, const Shared& s, int slot, float (&sums)[2][4][4]) const {
    const auto* const a_rows = reinterpret_cast<const BFloat16*>(s.left[slot]) + t.warp() / 2 * 32;
    const auto* const b_rows = reinterpret_cast<const BFloat16*>(s.right[slot]) + t.warp() % 2 * 32;
    LOWRANK_CUDA_UNROLL
    for (int k = 0; k < depth; k += 16) {
      std::uint32_t a[2][4], b[2][2][2];
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < 2; ++i) {
        load_a_transposed(t, a[i], a_rows + k * stride + 16 * i, stride);
        load_b_transposed(t, b[i], b_rows + k * stride + 16 * i, stride);
      }
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < 2; ++i) {
        LOWRANK_CUDA_UNROLL
        for (int j = 0; j < 4; ++j) t.mma(sums[i][j], a[i], b[j / 2][j % 2]);
      }
    }
  }
  template <class Simt>
  LOWRANK_DEVICE void store(Simt& t, const float (&sums)[2][4][4]) const {
    const int row = t.block_y() * tile + t.warp() / 2 * 32 + t.lane() / 4;
    const int col = t.block_x() * tile + t.warp() % 2 * 32 + t.lane() % 4 * 2;
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < 2; ++i) {
      LOWRANK_CUDA_UNROLL
      for (int j = 0; j < 4; ++j) {
        LOWRANK_CUDA_UNROLL
        for (int e = 0; e < 4; ++e) store_element(t.block_z(), row + 16 * i + e / 2 * 8, col + 8 * j + e % 2, sums[i][j][e]);
      }
    }
  }
};

/// c = scale · Σ partials in the order of the splits. A thread a number.
struct SumOuter {
  static constexpr int most_threads = 256;
  OuterProduct outer;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(ceil_div(static_cast<Index>(outer.rows()) * outer.cols(), most_threads)), .threads = most_threads};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index size = static_cast<Index>(outer.rows()) * outer.cols(), i = static_cast<Index>(t.block_x()) * most_threads + t.thread();
    if (i >= size) return;
    float sum = 0;
    for (int split = 0; split < outer.splits; ++split) sum += outer.partials[split * size + i];
    OuterProduct whole = outer;
    whole.splits = 1;
    whole.store_element(0, static_cast<int>(i / outer.cols()), static_cast<int>(i % outer.cols()), sum);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
