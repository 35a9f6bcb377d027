#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/quant/quantized_matrix.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// How far a quantized matrix is from the weights, and what it costs.
struct QuantizationError {
  double rmse = 0;             ///< sqrt(mean((w - ŵ)²)), in units of w
  double max_abs = 0;          ///< max |w - ŵ|, in units of w
  double relative = 0;         ///< rmse / sqrt(mean(w²)); 0 for an exact copy
  double bits_per_weight = 0;  ///< 8 · bytes / (rows · cols), scales and padding included
};

/// `QuantizationError: rmse 0.0067, largest 0.021, relative 0.092, 4.5 bits a weight`.
inline std::string describe(const QuantizationError& e) {
  return concat("QuantizationError: rmse ", e.rmse, ", largest ", e.max_abs, ", relative ", e.relative, ", ", e.bits_per_weight,
                " bits a weight");
}

/// Error of q against w [out, in], any source. Sums in double, in an order that does not depend on the threads. Throws ShapeError.
template <Source Weights, class Format>
QuantizationError quantization_error(const Weights& w, const QuantizedMatrix<Format>& q) {
  check<ShapeError>(w.rows() == q.rows() && w.cols() == q.cols(), "quantization_error", "w is [", w.rows(), ", ", w.cols(),
                    "] but the quantized matrix is [", q.rows(), ", ", q.cols(), "]; compare a matrix with its own quantization");
  if (w.rows() * w.cols() == 0) return {};
  struct Sums {
    double error = 0, signal = 0, largest = 0;
  };
  std::vector<Sums> by_row(static_cast<std::size_t>(w.rows()));
  parallel_ranges(w.rows(), std::max<Index>(1, (1 << 16) / w.cols()), [&](Index begin, Index end) {
    std::vector<double> exact(static_cast<std::size_t>(w.cols())), approximate(exact.size());
    for (Index row = begin; row < end; ++row) {
      w.decode(row, 1, 0, w.cols(), exact.data(), w.cols());
      q.decode(row, 1, 0, w.cols(), approximate.data(), w.cols());
      Sums& sums = by_row[static_cast<std::size_t>(row)];
      for (std::size_t i = 0; i < exact.size(); ++i) {
        const double rest = exact[i] - approximate[i];
        sums.error += rest * rest;
        sums.signal += exact[i] * exact[i];
        sums.largest = std::max(sums.largest, std::abs(rest));
      }
    }
  });
  Sums total;
  for (const Sums& sums : by_row) total = {total.error + sums.error, total.signal + sums.signal, std::max(total.largest, sums.largest)};
  const auto size = static_cast<double>(w.rows() * w.cols());
  return {.rmse = std::sqrt(total.error / size),
          .max_abs = total.largest,
          .relative = total.error == 0 ? 0 : std::sqrt(total.error / total.signal),
          .bits_per_weight = 8.0 * static_cast<double>(q.bytes()) / size};
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
