#pragma once

#include <lowrank/cuda/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Y = W X + adapter · H for at most `Tokens` tokens: bound by the memory, for each weight is read once and used a few times.
///
/// A warp a row of W; a lane takes every 32nd chunk of it, 16 bytes of codes a load, the next load under way while it multiplies. Decoded
/// weights stay in registers. The lanes' sums meet in a fixed order. Grid: rows / 4, 128 threads.
template <int Bits, int Tokens>
struct ProductFew {
  static constexpr int most_threads = 128, rows_of_block = most_threads / warp_size, words = Bits / 4;
  Product product;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(ceil_div(product.rows, rows_of_block)), .threads = most_threads, .shared_bytes = 16 * sizeof(float)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    float* const table = &shared_as<float>(t);
    if (t.thread() < 16) table[t.thread()] = product.base.table[t.thread()];
    t.sync();
    const int row = t.block_x() * rows_of_block + t.warp();
    if (row >= product.rows) return;  // a whole warp
    float sum[Tokens] = {};
    if (row < product.base.rows) add_row(t, row, table, sum);
    add_adapter(t, row, sum);
    for (int token = 0; token < Tokens; ++token) {
      const float total = warp_sum(t, sum[token]);
      if (t.lane() == 0 && token < product.tokens) store_output(product, 0, row, token, total);
    }
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE void add_row(Simt& t, int row, const float* table, float (&sum)[Tokens]) const {
    const PackedView& w = product.base;
    const Index first = static_cast<Index>(row) * w.chunks;
    Word4 next[words];
    if (t.lane() < w.chunks) fetch(t, first + t.lane(), next);
    for (int chunk = t.lane(); chunk < w.chunks; chunk += warp_size) {
      Word4 codes[words];
      for (int i = 0; i < words; ++i) codes[i] = next[i];
      if (chunk + warp_size < w.chunks) fetch(t, first + chunk + warp_size, next);
      const ChunkScale by = scale_of(w, first + chunk);
      LOWRANK_CUDA_UNROLL
      for (int part = 0; part < 4; ++part) {
        float weight[8];
        decode_part<Bits>(codes, part, table, by, weight);
        dot(weight, product.x, chunk * chunk_size + part * 8, sum);
      }
    }
  }

  /// The rank's columns, 8 a lane.
  template <class Simt>
  LOWRANK_DEVICE void add_adapter(Simt& t, int row, float (&sum)[Tokens]) const {
    const AdapterView& a = product.adapter;
    for (int k = t.lane() * 8; k < a.depth; k += warp_size * 8) {
      const Word4 columns = *reinterpret_cast<const Word4*>(a.data + row * a.stride + k);
      float weight[8];
      decode_part<16>(&columns, 0, nullptr, {}, weight);
      dot(weight, product.h, k, sum);
    }
  }

  template <class Simt>
  LOWRANK_DEVICE void fetch(Simt& t, Index chunk, Word4 (&codes)[words]) const {
    for (int i = 0; i < words; ++i) codes[i] = t.stream(product.base.codes + chunk * words + i);
  }

  LOWRANK_DEVICE void dot(const float (&weight)[8], const Operand& x, int k, float (&sum)[Tokens]) const {
    LOWRANK_CUDA_UNROLL
    for (int token = 0; token < Tokens; ++token) {
      if (token >= product.tokens) continue;
      const Word4 eight = *reinterpret_cast<const Word4*>(x.data + token * x.stride + k);
      for (int j = 0; j < 4; ++j)
        sum[token] += weight[2 * j] * low_bfloat16(eight.word[j]) + weight[2 * j + 1] * high_bfloat16(eight.word[j]);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
