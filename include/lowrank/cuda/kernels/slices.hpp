#pragma once

/// What a product by way of a plain one takes: W decoded slice by slice into a buffer that stays in the L2 cache, and the bias.

#include <lowrank/cuda/kernels/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A slice of [W | update], or of it transposed, as rows of bfloat16, `stride` apart: what a plain product reads.
///
/// Row i, chunk j of the slice is chunk (row + i, chunk + j) of W where W has one. The update's begin at `update_at`, counted in columns
/// from W's first, or in rows when transposed; between W and the update, and past both, are zeros. A block a row, a thread 16 bytes of it
/// at a time; four of them at once, across rows, were a tenth slower (H200).
template <int Bits>
struct DecodeSlice {
  static constexpr int most_threads = 128, words = Bits / 4, parts_of_chunk = chunk_size / 8;
  ChunkedView w;
  int row = 0, rows = 0, chunk = 0;
  BFloat16* out = nullptr;
  Index stride = 0;
  UpdateFactor update;
  int update_at = 0;
  bool transposed = false;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(stride > 0 ? rows : 0), .threads = most_threads, .shared_bytes = 16 * sizeof(float)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    float* const table = &shared_as<float>(t);
    if (t.thread() < 16) table[t.thread()] = w.table[t.thread()];
    t.sync();
    const int from_row = row + t.block_x(), parts = static_cast<int>(stride / 8);
    Word4* const to = reinterpret_cast<Word4*>(out + t.block_x() * stride);
    for (int part = t.thread(); part < parts; part += most_threads) {
      const int from_chunk = chunk + part / parts_of_chunk, in_chunk = part % parts_of_chunk;
      const bool is_base = from_row < w.rows && from_chunk < w.chunks;
      const Index from = is_base ? static_cast<Index>(from_row) * w.chunks + from_chunk : 0;
      to[part] = is_base ? decode_bfloat16<Bits>(w.codes + from * words, in_chunk, table, scale_of(w, from))
                         : update_part(from_row, from_chunk, in_chunk);
    }
  }

 private:
  LOWRANK_DEVICE Word4 update_part(int from_row, int from_chunk, int part) const {
    const int i = transposed ? from_row - update_at : from_row, j = transposed ? from_chunk : from_chunk - update_at / chunk_size;
    const bool is_inside = i >= 0 && j >= 0 && i < (transposed ? update.depth : update.rows) && j * chunk_size < update.stride;
    return is_inside ? reinterpret_cast<const Word4*>(update.data + i * update.stride + j * chunk_size)[part] : Word4{};
  }
};

/// y[token · ldy + row] += bias[row]. A thread an output; grid: outputs / 256.
struct AddBias {
  static constexpr int most_threads = 256;
  const float* bias = nullptr;
  int rows = 0, tokens = 0;
  float* y = nullptr;
  Index ldy = 0;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(ceil_div(static_cast<Index>(rows) * tokens, most_threads)), .threads = most_threads};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = static_cast<Index>(t.block_x()) * most_threads + t.thread();
    if (i < static_cast<Index>(rows) * tokens) y[i / rows * ldy + i % rows] += bias[i % rows];
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
