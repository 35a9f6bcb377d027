#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/quant/quantized_matrix.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {
namespace quant {

/// Elements that one thread decodes at a time: a multiple of every block.
inline constexpr Index decode_grain = 1 << 16;

/// Bytes from which on a written matrix goes past the caches: it would not stay in them, and a line need not be read to be overwritten.
inline std::size_t stream_threshold() { return 8 * static_cast<std::size_t>(kernels::cache_sizes().l2); }

/// Calls decode(done, count, floats) for tiles of `length` elements and writes the floats to out.
template <class Element, class Decode>
void convert_tiles(Index length, Element* out, const Decode& decode) {
  constexpr Index tile = 1 << 10;
  alignas(64) float floats[tile];
  for (Index done = 0; done < length; done += tile) {
    const Index count = std::min(tile, length - done);
    decode(done, count, floats);
    std::transform(floats, floats + count, out + done, [](float x) { return static_cast<Element>(x); });
  }
}

/// Writes elements [begin, begin + length) of a matrix that is one row of blocks.
template <class Element>
class RunDecoder {
 public:
  RunDecoder(const BlockSource& source, bool streams) : flat_(source), streams_(streams) {
    flat_.row_count = 1;
    flat_.pitch = flat_.col_count = source.row_count * source.pitch;
    const kernels::QuantizeKernels& target = kernels::current_target().quantize;
    if constexpr (std::is_same_v<Element, float>) decode_ = target.decode_float;
    if constexpr (std::is_same_v<Element, BFloat16>) decode_ = target.decode_bfloat16;
  }

  /// begin is where a block begins, unless codes are nibble_pairs.
  void operator()(Index begin, Index length, Element* out) const {
    if (decode_ == nullptr) return by_floats(begin, length, out);
    const Index head = std::min(length, round_up(begin, unit) - begin), middle = (length - head) / unit * unit;
    plain(begin, head, out);
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(out + head) % 16 == 0;
    decode_(flat_, begin + head, middle, out + head, streams_ && is_aligned);
    plain(begin + head + middle, length - head - middle, out + head + middle);
  }

 private:
  static constexpr Index unit = 32;

  void plain(Index begin, Index length, Element* out) const {
    if (length > 0)
      convert_tiles(length, out, [&](Index done, Index count, float* to) { flat_.decode(0, 1, begin + done, count, to, count); });
  }
  void by_floats(Index begin, Index length, Element* out) const {
    if constexpr (std::is_same_v<Element, float>) {
      kernels::current_target().decode_blocks(flat_, 0, 1, begin, length, out, length);
    } else {
      const RunDecoder<float> decode(flat_, false);
      convert_tiles(length, out, [&](Index done, Index count, float* to) { decode(begin + done, count, to); });
    }
  }

  BlockSource flat_;
  bool streams_;
  kernels::QuantizeKernels::Decode<Element> decode_ = nullptr;
};

/// Calls body(row, col, length) for runs of at most decode_grain elements that cover [rows, cols], from several threads.
template <class Body>
void for_each_run(Index rows, Index cols, const Body& body) {
  if (rows == 0 || cols == 0) return;
  const Index runs = ceil_div(cols, decode_grain);
  parallel_ranges(rows * runs, std::max<Index>(1, decode_grain / cols), [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index col = i % runs * decode_grain;
      body(i / runs, col, std::min(decode_grain, cols - col));
    }
  });
}

/// Element (i, j) to out[i · stride + j].
template <class Format, class Element>
void decode_matrix(const QuantizedMatrix<Format>& q, Element* out, Index stride) {
  const Index rows = q.rows(), cols = q.cols();
  if constexpr (requires { q.source(); }) {
    const BlockSource source = q.source();
    const bool is_one_run = source.pitch == cols && stride == cols;
    const RunDecoder<Element> decode(source, static_cast<std::size_t>(rows * cols) * sizeof(Element) >= stream_threshold());
    for_each_run(is_one_run ? 1 : rows, is_one_run ? rows * cols : cols,
                 [&](Index row, Index col, Index length) { decode(row * source.pitch + col, length, out + row * stride + col); });
  } else {
    for_each_run(rows, cols, [&](Index row, Index col, Index length) {
      convert_tiles(length, out + row * stride + col,
                    [&](Index done, Index count, float* to) { q.decode(row, 1, col + done, count, to, count); });
    });
  }
}

}  // namespace quant

/// Writes the matrix, row by row without gaps, as float, double, bfloat16 or half (rounded from fp32, to nearest, ties to even).
///
/// Throws ShapeError unless out has rows · cols elements. Cost: writing `out` to memory; large ones go past the caches.
template <class Format, class Element>
void dequantize_into(const QuantizedMatrix<Format>& q, std::span<Element> out) {
  check<ShapeError>(out.size() == static_cast<std::size_t>(q.rows() * q.cols()), "dequantize_into", "out has ", out.size(),
                    " elements but the matrix is [", q.rows(), ", ", q.cols(), "]; give it rows * cols");
  quant::decode_matrix(q, out.data(), q.cols());
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
