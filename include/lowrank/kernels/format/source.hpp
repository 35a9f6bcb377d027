#pragma once

#include <algorithm>
#include <concepts>
#include <utility>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// What a product can multiply with: a matrix [rows, cols] that can write any window of itself as numbers.
///
/// `decode(row, count, col, length, out, stride)` writes element (row + i, col + j) to out[i * stride + j], i < count, j < length.
/// Sources compose: transposed, concat_depth, concat_rows, scaled. A source whose member `source()` gives a simpler one (a BlockSource,
/// a DenseSource) is multiplied by that one's fast path; every other source is decoded tile by tile.
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

/// Sᵀ [cols, rows] of S [rows, cols].
template <Source S>
struct Transposed {
  S source;

  Index rows() const { return source.cols(); }
  Index cols() const { return source.rows(); }

  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    constexpr Index width = 64, height = 16;
    Scalar tile[height * width];
    for (Index r = 0; r < count; r += width) {
      for (Index c = 0; c < length; c += height) {
        const Index m = std::min(width, count - r), n = std::min(height, length - c);
        source.decode(col + c, n, row + r, m, tile, width);
        for (Index i = 0; i < m; ++i)
          for (Index j = 0; j < n; ++j) out[(r + i) * stride + c + j] = tile[j * width + i];
      }
    }
  }
};

/// factor · S.
template <Source S>
struct Scaled {
  S source;
  double factor;

  Index rows() const { return source.rows(); }
  Index cols() const { return source.cols(); }

  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    source.decode(row, count, col, length, out, stride);
    for (Index i = 0; i < count; ++i)
      for (Index j = 0; j < length; ++j) out[i * stride + j] *= static_cast<Scalar>(factor);
  }
};

/// [left | right]: [rows, left.cols + right.cols]. A LoRA layer is [W | s B] · [X ; A X].
template <Source Left, Source Right>
struct ConcatDepth {
  Left left;
  Right right;

  Index rows() const { return left.rows(); }
  Index cols() const { return left.cols() + right.cols(); }

  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    const Index split = std::clamp<Index>(left.cols() - col, 0, length);
    if (split > 0) left.decode(row, count, col, split, out, stride);
    if (split < length) right.decode(row, count, col + split - left.cols(), length - split, out + split, stride);
  }
};

/// [top ; bottom]: [top.rows + bottom.rows, cols]. Query, key and value, or W and A, in one product.
template <Source Top, Source Bottom>
struct ConcatRows {
  Top top;
  Bottom bottom;

  Index rows() const { return top.rows() + bottom.rows(); }
  Index cols() const { return top.cols(); }

  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    const Index split = std::clamp<Index>(top.rows() - row, 0, count);
    if (split > 0) top.decode(row, split, col, length, out, stride);
    if (split < count) bottom.decode(row + split - top.rows(), count - split, col, length, out + split * stride, stride);
  }
};

template <Source S>
Transposed<S> transposed(S source) {
  return {std::move(source)};
}
template <Source S>
Scaled<S> scaled(S source, double factor) {
  return {std::move(source), factor};
}
template <Source Left, Source Right>
ConcatDepth<Left, Right> concat_depth(Left left, Right right) {
  check<ShapeError>(left.rows() == right.rows(), "concat_depth", "left is [", left.rows(), ", ", left.cols(), "] but right is [",
                    right.rows(), ", ", right.cols(), "]; their rows must agree");
  return {std::move(left), std::move(right)};
}
template <Source Top, Source Bottom>
ConcatRows<Top, Bottom> concat_rows(Top top, Bottom bottom) {
  check<ShapeError>(top.cols() == bottom.cols(), "concat_rows", "top is [", top.rows(), ", ", top.cols(), "] but bottom is [",
                    bottom.rows(), ", ", bottom.cols(), "]; their columns must agree");
  return {std::move(top), std::move(bottom)};
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
