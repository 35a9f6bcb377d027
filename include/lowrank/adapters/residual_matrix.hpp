#pragma once

#include <memory>
#include <utility>

#include <lowrank/ops/factors.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W - s B A of a frozen weight W in any format, itself a Source: the base of an update that begins with s B A. W keeps its format and its
/// bytes; each window is decoded, and r rows are subtracted from it in fp32, while a product reads it. Copies share everything.
class ResidualMatrix {
 public:
  /// W [out, in], B [out, r], A [r, in]. Throws ShapeError.
  ResidualMatrix(AnyMatrix w, Factors update) : w_(std::move(w)), update_(std::make_shared<const Factors>(std::move(update))) {
    check<ShapeError>(update_->b.rows() == w_.rows() && update_->a.cols() == w_.cols() && update_->b.cols() == update_->a.rows(),
                      "residual_matrix", "the weight is [", w_.rows(), ", ", w_.cols(), "] but b is [", update_->b.rows(), ", ",
                      update_->b.cols(), "] and a [", update_->a.rows(), ", ", update_->a.cols(), ']');
  }

  Index rows() const { return w_.rows(); }
  Index cols() const { return w_.cols(); }
  std::size_t bytes() const { return w_.bytes() + static_cast<std::size_t>(update_->a.size() + update_->b.size()) * sizeof(float); }

  /// Writes element (row + i, col + j) to out[i · stride + j], i < count, j < length. Cost: 2 r FLOPs an element.
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    w_.decode(row, count, col, length, out, stride);
    const auto& [a, b, scale] = *update_;
    for (Index i = 0; i < count; ++i) {
      Eigen::Map<Column<Scalar>> line(out + i * stride, length);
      // One row after the other: an element's sum has the same order whatever the window.
      for (Index k = 0; k < a.rows(); ++k)
        line -= static_cast<Scalar>(static_cast<float>(scale) * b(row + i, k)) *
                a.row(k).segment(col, length).transpose().template cast<Scalar>();
    }
  }

 private:
  AnyMatrix w_;
  std::shared_ptr<const Factors> update_;
};

}  // namespace lowrank::inline LOWRANK_ABI
