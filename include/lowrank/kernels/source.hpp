#pragma once

#include <algorithm>
#include <concepts>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What a product can multiply with: a matrix [rows, cols] that can write any window of itself as numbers.
///
/// `decode(row, count, col, length, out, stride)` writes element (row + i, col + j) to out[i * stride + j], i < count, j < length.
template <class Candidate>
concept Source = requires(const Candidate& source, Index i, float* out) {
  { source.rows() } -> std::convertible_to<Index>;
  { source.cols() } -> std::convertible_to<Index>;
  source.decode(i, i, i, i, out, i);
};

/// Numbers that lie in memory row by row, `stride` apart; does not own them. Element is float, double, bfloat16 or half.
template <class Element>
class DenseSource {
 public:
  DenseSource(const Element* data, Index rows, Index cols, Index stride) : data_(data), rows_(rows), cols_(cols), stride_(stride) {}
  DenseSource(const Element* data, Index rows, Index cols) : DenseSource(data, rows, cols, cols) {}

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index stride() const { return stride_; }
  const Element* data() const { return data_; }

  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    for (Index i = 0; i < count; ++i) {
      const Element* from = data_ + (row + i) * stride_ + col;
      std::transform(from, from + length, out + i * stride, [](Element x) { return static_cast<Scalar>(x); });
    }
  }

 private:
  const Element* data_;
  Index rows_, cols_, stride_;
};

}  // namespace lowrank::inline LOWRANK_ABI
