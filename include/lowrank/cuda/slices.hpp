#pragma once

/// A product by way of a plain matrix product of bfloat16: W is decoded slice by slice into a buffer that stays in the L2 cache.

#include <lowrank/cuda/product.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// out[i · stride + j] = W(row + i, 32 chunk + j) as bfloat16, for `rows` rows and stride / 32 chunks. A thread a chunk; grid: chunks /
/// 256.
template <int Bits>
struct DecodeSlice {
  static constexpr int most_threads = 256, words = Bits / 4;
  PackedView w;
  int row = 0, rows = 0, chunk = 0;
  bfloat16* out = nullptr;
  Index stride = 0;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(ceil_div(rows * (stride / chunk_size), most_threads)),
            .threads = most_threads,
            .shared_bytes = 16 * sizeof(float)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    float* const table = &shared_as<float>(t);
    if (t.thread() < 16) table[t.thread()] = w.table[t.thread()];
    t.sync();
    const Index index = static_cast<Index>(t.block_x()) * most_threads + t.thread(), across = stride / chunk_size;
    if (index >= rows * across) return;
    const Index from = (row + index / across) * w.chunks + chunk + index % across;
    Word4 codes[words];
    for (int i = 0; i < words; ++i) codes[i] = t.stream(w.codes + from * words + i);
    const ChunkScale by = scale_of(w, from);
    Word4* const to = reinterpret_cast<Word4*>(out) + index * (chunk_size / 8);
    LOWRANK_CUDA_UNROLL
    for (int part = 0; part < 4; ++part) to[part] = decode_bfloat16<Bits>(codes, part, table, by);
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

/// Room for a decoded slice, 32 MiB where the L2 cache holds 50.
struct SliceBuffer {
  bfloat16* data = nullptr;
  Index size = 0;  ///< numbers
};

namespace detail {

/// Outputs a slice: what the buffer holds, whole chunks when turned. Throws ShapeError where it holds not even one.
inline int slice_rows(const Product& p, bool turned, const SliceBuffer& buffer) {
  const Index width = turned ? p.base.rows : p.base.chunks * chunk_size, unit = turned ? chunk_size : 1;
  const Index count = buffer.size / (width > 0 ? width : 1) / unit * unit;
  check<ShapeError>(count > 0, "multiply: slices", "a buffer of ", buffer.size, " numbers holds no slice of a matrix [", p.base.rows, ", ",
                    p.base.cols, "]; it takes at least ", width * unit);
  return static_cast<int>(count < p.rows ? count : p.rows);
}

}  // namespace detail

/// Y = W X + adapter · H, or turned, by a plain product: multiply(DenseProduct). A slice holds some of the outputs and all of the depth:
/// rows of W, or turned columns, so no sum is cut. A base of bfloat16 is its own slice. Not for token tiles.
template <bool Turned, int Bits, class Launch, class Multiply>
void multiply_slices(Launch& launch, const Multiply& multiply, const Product& p, const SliceBuffer& buffer) {
  const int step = Bits == 16 ? p.rows : detail::slice_rows(p, Turned, buffer);
  for (int first = 0; first < p.rows; first += step) {
    const int count = p.rows - first < step ? p.rows - first : step;
    const Index whole = static_cast<Index>(p.base.chunks) * chunk_size, stride = Turned && Bits != 16 ? round_up(count, chunk_size) : whole;
    DenseProduct dense{Turned, count, p.tokens, p.x.depth, buffer.data, stride, p.x.data, p.x.stride, p.y + first, p.ldy, p.accumulate};
    if constexpr (Bits == 16)
      dense.left = reinterpret_cast<const bfloat16*>(p.base.codes);
    else if constexpr (Turned)
      launch(DecodeSlice<Bits>{p.base, 0, p.base.rows, first / chunk_size, buffer.data, stride});
    else
      launch(DecodeSlice<Bits>{p.base, first, count, 0, buffer.data, stride});
    multiply(dense);
    if (p.adapter.depth == 0) continue;
    dense.left = p.adapter.data + (Turned ? first : first * p.adapter.stride);
    dense.left_stride = p.adapter.stride;
    dense.right = p.h.data, dense.right_stride = p.h.stride, dense.depth = p.adapter.depth;
    dense.accumulate = true;
    multiply(dense);
  }
  if (p.bias) launch(AddBias{p.bias, p.rows, p.tokens, p.y, p.ldy});
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
