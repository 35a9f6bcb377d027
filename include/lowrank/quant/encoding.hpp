#pragma once

/// What every encoder shares: reading weights in order, the largest magnitude, and reporting the first weight that cannot be stored.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>
#include <lowrank/kernels/source.hpp>

namespace lowrank::inline LOWRANK_ABI::quant {

/// Weights that one thread encodes at a time.
inline constexpr Index encode_grain = 1 << 16;

/// Writes elements [begin, begin + length) of the flattened (row-major) source as floats.
template <Source Weights>
void read_flat(const Weights& w, Index begin, Index length, float* out) {
  for (Index row = begin / w.cols(), col = begin % w.cols(); length > 0; ++row, col = 0) {
    const Index run = std::min(length, w.cols() - col);
    w.decode(row, 1, col, run, out, run);
    out += run;
    length -= run;
  }
}

/// max |x|; infinite or NaN if any element is (without the sign bit, floats order as integers do).
inline float largest_magnitude(const float* x, Index count) {
  std::uint32_t largest = 0;
  for (Index i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
  return std::bit_cast<float>(largest);
}

/// 1 / scale, and 0 where that is no number: for 0, and for a scale so small that half precision stores it as 0.
inline float reciprocal(float scale) {
  const float inverse = 1.0f / scale;
  return std::isfinite(inverse) ? inverse : 0.0f;
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
      lowrank::check<ValueError>(std::isfinite(value), "quantize", "element [", i / w.cols(), ", ", i % w.cols(), "] of a [", w.rows(),
                                 ", ", w.cols(), "] weight is ", value, "; only finite fp32 numbers can be quantized");
    }
    fail<ValueError>("quantize", "the block that begins at [", row, ", ", col, "] of a [", w.rows(), ", ", w.cols(),
                     "] weight needs a scale beyond half precision (65504); choose Nf4 or Fp4, whose scales are fp32");
  }

 private:
  static constexpr Index none = std::numeric_limits<Index>::max();
  std::atomic<Index> position_{none};
};

}  // namespace lowrank::inline LOWRANK_ABI::quant
