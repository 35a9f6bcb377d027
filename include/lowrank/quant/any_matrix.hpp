#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/quant/format.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A frozen matrix [rows, cols] whose format is known at run time only; a Source. Shares what it was made from; copies are cheap.
///
/// Made from any source that is a value and knows its bytes(): a QuantizedMatrix of any format, a StoredMatrix of any element. Its view is
/// what kernels read, as fast as if the type were known. So code that serves every format is compiled once.
class AnyMatrix {
 public:
  AnyMatrix() = default;
  template <Source Matrix>
  requires(!std::is_same_v<Matrix, AnyMatrix>) explicit AnyMatrix(Matrix matrix) {
    const auto held = std::make_shared<const Matrix>(std::move(matrix));
    view_ = WeightView(*held);
    bytes_ = static_cast<std::size_t>(held->bytes());
    held_ = held;
  }

  Index rows() const { return view_.rows(); }
  Index cols() const { return view_.cols(); }
  /// The format's name: nf4, Q4_1, bf16, …
  std::string_view format() const { return view_.format(); }
  /// Bytes of the storage: codes and scales, or dense numbers.
  std::size_t bytes() const { return bytes_; }
  /// The weight where it lies; lives as long as this or a copy of it does.
  const WeightView& view() const& { return view_; }
  auto view() const&& = delete;  // a view refers to the matrix's numbers: give the matrix a name first

  /// Writes element (row + i, col + j) to out[i · stride + j], i < count, j < length.
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    if (held_) view_.decode(row, count, col, length, out, stride);
  }

 private:
  std::shared_ptr<const void> held_;
  WeightView view_;
  std::size_t bytes_ = 0;
};

/// `AnyMatrix Q4_0 [48, 64], 4.5 bits a weight, 1.7 kB`.
inline std::string describe(const AnyMatrix& w) { return "AnyMatrix " + quant::matrix_text(w.format(), w.rows(), w.cols(), w.bytes()); }

}  // namespace lowrank::inline LOWRANK_ABI
