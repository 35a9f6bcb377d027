#pragma once

/// What every encoder shares: reading weights in order, and reporting the first weight that cannot be stored.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>
#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/kernels/driver/scratch.hpp>
#include <lowrank/kernels/format/source.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::quant {

inline constexpr Index encode_grain = 1 << 16;  ///< weights that one thread encodes at a time
inline constexpr Index chunk = 1 << 12;         ///< those of them that one call of a kernel encodes: a multiple of every block

/// Rows [row, row + count), columns [col, col + length) of a source as floats, one after the other.
template <Source Weights>
void read_rows(const Weights& w, Index row, Index count, Index col, Index length, float* out) {
  const kernels::Target& target = kernels::current_target();
  for (Index i = 0; i < count; ++i, out += length) {
    if constexpr (std::derived_from<Weights, DenseSource<BFloat16>>)
      target.widen_bfloat16(w.data() + (row + i) * w.stride() + col, length, out);
    else if constexpr (std::derived_from<Weights, DenseSource<Half>>)
      target.widen_half(w.data() + (row + i) * w.stride() + col, length, out);
    else
      return w.decode(row, count, col, length, out, length);
  }
}

/// Elements [begin, begin + length) of the flattened (row-major) source as floats: the end of a row, whole rows, the beginning of one.
template <Source Weights>
void read_flat(const Weights& w, Index begin, Index length, float* out) {
  const Index cols = w.cols();
  while (length > 0) {
    const Index row = begin / cols, col = begin % cols, count = col == 0 && length >= cols ? length / cols : 1;
    const Index run = count > 1 ? cols : std::min(length, cols - col);
    read_rows(w, row, count, col, run, out);
    begin += count * run, out += count * run, length -= count * run;
  }
}

/// Names the memory of row_floats and flat_floats.
struct EncodedFloats {};

/// Floats and the distance from one row to the next.
struct RowFloats {
  const float* data;
  Index stride;
};

/// Rows [row, row + count) where they are, if they lie there as floats, else read into memory of this thread's.
template <Source Weights>
RowFloats row_floats(const Weights& w, Index row, Index count) {
  if constexpr (std::derived_from<Weights, DenseSource<float>>) return {w.data() + row * w.stride(), w.stride()};
  float* const buffer = kernels::Scratch<EncodedFloats>::get<float>(count * w.cols());
  read_rows(w, row, count, 0, w.cols(), buffer);
  return {buffer, w.cols()};
}

/// The same for elements [begin, begin + length) of the flattened source, where its rows follow each other without gaps.
template <Source Weights>
const float* flat_floats(const Weights& w, Index begin, Index length) {
  if constexpr (std::derived_from<Weights, DenseSource<float>>)
    if (w.stride() == w.cols()) return w.data() + begin;
  float* const buffer = kernels::Scratch<EncodedFloats>::get<float>(length);
  read_flat(w, begin, length, buffer);
  return buffer;
}

/// Two codes in a byte.
constexpr std::byte nibbles(int low, int high) { return static_cast<std::byte>(low | high << 4); }

/// Remembers the first position at which any thread failed, so that the error is the same for any number of threads.
class FirstFailure {
 public:
  void record(Index position) {
    Index known = position_.load(std::memory_order_relaxed);
    while (position < known && !position_.compare_exchange_weak(known, position, std::memory_order_relaxed)) {
    }
  }

  /// Throws ValueError that names the element: the first that is not finite, or else the block whose scale does not fit.
  template <Source Weights>
  void check(const Weights& w, Index block) const {
    const Index begin = position_.load();
    if (begin == none) return;
    const Index row = begin / w.cols(), col = begin % w.cols(), end = std::min(begin + block, w.rows() * w.cols());
    for (Index i = begin; i < end; ++i) {
      float value = 0;
      read_flat(w, i, 1, &value);
      lowrank::check<ValueError>(is_finite(value), "quantize", "element [", i / w.cols(), ", ", i % w.cols(), "] of a [", w.rows(), ", ",
                                 w.cols(), "] weight is ", value, "; only finite fp32 numbers can be quantized");
    }
    fail<ValueError>("quantize", "the block that begins at [", row, ", ", col, "] of a [", w.rows(), ", ", w.cols(),
                     "] weight needs a scale beyond half precision (65504); choose Nf4 or Fp4, whose scales are fp32");
  }

 private:
  static constexpr Index none = std::numeric_limits<Index>::max();
  std::atomic<Index> position_{none};
};

}  // namespace lowrank::inline LOWRANK_ABI::quant
LOWRANK_IEEE_END
