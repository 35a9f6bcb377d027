#pragma once

/// A product by way of a plain matrix product of bfloat16: W is decoded slice by slice into a buffer that stays in the L2 cache.

#include <lowrank/cuda/product.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A slice of [W | adapter], or of it turned, as rows of bfloat16, `stride` apart: what a plain product reads.
///
/// Row i, chunk j of the slice is chunk (row + i, chunk + j) of W where W has one. The adapter's begin at `adapter_at`, counted in columns
/// from W's first, or in rows when turned; between W and the adapter, and past both, are zeros. A block a row, a thread 16 bytes of it at a
/// time; four of them at once, across rows, were a tenth slower (H200).
template <int Bits>
struct DecodeSlice {
  static constexpr int most_threads = 128, words = Bits / 4, parts_of_chunk = chunk_size / 8;
  PackedView w;
  int row = 0, rows = 0, chunk = 0;
  bfloat16* out = nullptr;
  Index stride = 0;
  AdapterView adapter;
  int adapter_at = 0;
  bool turned = false;

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
                         : adapter_part(from_row, from_chunk, in_chunk);
    }
  }

 private:
  LOWRANK_DEVICE Word4 adapter_part(int from_row, int from_chunk, int part) const {
    const int i = turned ? from_row - adapter_at : from_row, j = turned ? from_chunk : from_chunk - adapter_at / chunk_size;
    const bool is_inside = i >= 0 && j >= 0 && i < (turned ? adapter.depth : adapter.rows) && j * chunk_size < adapter.stride;
    return is_inside ? reinterpret_cast<const Word4*>(adapter.data + i * adapter.stride + j * chunk_size)[part] : Word4{};
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

/// Y [rows, tokens] = or += L R with L(i, k) at left[i · left_stride + k], or turned at left[k · left_stride + i], R(k, t) at
/// right[t · right_stride + k].
struct DenseProduct {
  bool turned = false;
  int rows = 0, tokens = 0, depth = 0;
  const bfloat16* left = nullptr;
  Index left_stride = 0;
  const bfloat16* right = nullptr;
  Index right_stride = 0;
  float* y = nullptr;
  Index ldy = 0;
  bool accumulate = false;
};

/// C [rows, cols], row-major, += scale · L Rᵀ over the tokens: the gradient of a factor.
struct DenseOuter {
  Operand left, right;  ///< [rows, tokens], [cols, tokens]
  int tokens = 0;
  float scale = 1;
  float* c = nullptr;
};

/// Room for a decoded slice, 40 MiB where the L2 cache holds 50: all of a matrix [4096, 4096] with its adapter.
struct SliceBuffer {
  bfloat16* data = nullptr;
  Index size = 0;  ///< numbers
};

namespace detail {

/// Where h begins in the rows of x, counted in numbers, if it lies there (Operand::room), else 0.
inline int adapter_place(const Product& p) {
  if (p.adapter.depth == 0 || p.h.stride != p.x.stride || p.h.data <= p.x.data) return 0;
  const Index at = p.h.data - p.x.data, end = at + round_up(p.adapter.depth, chunk_size);
  return at % chunk_size == 0 && at >= round_up(p.x.depth, chunk_size) && end <= p.x.stride ? static_cast<int>(at) : 0;
}

/// Outputs a slice: what the buffer holds, whole chunks when turned. Throws ShapeError where it holds not even one.
inline int slice_rows(const Product& p, bool turned, Index width, const SliceBuffer& buffer) {
  const Index unit = turned ? chunk_size : 1, count = buffer.size / (width > 0 ? width : 1) / unit * unit;
  check<ShapeError>(count > 0, "multiply: slices", "a buffer of ", buffer.size, " numbers holds no slice of a matrix [", p.base.rows, ", ",
                    p.base.cols, "]; it takes at least ", width * unit);
  if (count >= p.rows) return p.rows;
  const Index slices = ceil_div(p.rows, count);  // of nearly one size, in multiples of 128 where there is room
  const Index even = round_up(ceil_div(p.rows, slices), 128);
  return static_cast<int>(even < count ? even : count);
}

}  // namespace detail

/// Y = W X + adapter · H, or turned, by a plain product: multiply(DenseProduct). A slice holds some of the outputs and all of the depth:
/// rows of W, or turned columns, so no sum is cut. Where H lies in the rows of X, the adapter's columns are more of the depth; elsewhere
/// they are a product of their own, which reads and writes Y once more. A base of bfloat16 without such columns is its own slice. Not for
/// token tiles.
template <bool Turned, int Bits, class Launch, class Multiply>
void multiply_slices(Launch& launch, const Multiply& multiply, const Product& p, const SliceBuffer& buffer) {
  const int place = detail::adapter_place(p);
  const bool is_own_slice = Bits == 16 && place == 0;
  const Index whole = static_cast<Index>(p.base.chunks) * chunk_size;
  const int depth = place > 0 ? place + static_cast<int>(round_up(p.adapter.depth, 16)) : p.x.depth;
  const Index width = Turned ? depth : place > 0 ? round_up(depth, chunk_size) : whole;
  const int step = is_own_slice ? p.rows : detail::slice_rows(p, Turned, width, buffer);
  for (int first = 0; first < p.rows; first += step) {
    const int count = p.rows - first < step ? p.rows - first : step;
    const Index stride = is_own_slice ? whole : Turned ? round_up(count, chunk_size) : width;
    DenseProduct dense{Turned, count, p.tokens, depth, buffer.data, stride, p.x.data, p.x.stride, p.y + first, p.ldy, p.accumulate};
    if (is_own_slice)
      dense.left = reinterpret_cast<const bfloat16*>(p.base.codes) + (Turned ? first : first * whole);
    else if constexpr (Turned)
      launch(DecodeSlice<Bits>{p.base, 0, depth, first / chunk_size, buffer.data, stride, p.adapter, place, true});
    else
      launch(DecodeSlice<Bits>{p.base, first, count, 0, buffer.data, stride, p.adapter, place, false});
    multiply(dense);
    if (p.adapter.depth == 0 || place > 0) continue;
    dense.left = p.adapter.data + (Turned ? first : first * p.adapter.stride);
    dense.left_stride = p.adapter.stride;
    dense.right = p.h.data, dense.right_stride = p.h.stride, dense.depth = p.adapter.depth;
    dense.accumulate = true;
    multiply(dense);
  }
  if (p.bias) launch(AddBias{p.bias, p.rows, p.tokens, p.y, p.ldy});
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
