#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/kernels/blocks.hpp>
#include <lowrank/kernels/source.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A frozen matrix [rows, cols] whose format is known at run time only; a Source. Shares what it was made from; copies are cheap.
///
/// Made from any source that is a value and knows its bytes(): a QuantizedMatrix of any format, a StoredMatrix of any element. The kernels
/// see the simple source inside (blocks or dense numbers) and decode it as fast as if its type were known; any other source is decoded
/// through one function pointer a window. So code that serves every format is compiled once.
class AnyMatrix {
 public:
  AnyMatrix() = default;

  template <Source Matrix>
  requires(!std::is_same_v<Matrix, AnyMatrix>) explicit AnyMatrix(Matrix matrix)
      : held_(std::make_shared<const Matrix>(std::move(matrix))),
        decode_float_(&decode_as<Matrix, float>),
        decode_double_(&decode_as<Matrix, double>) {
    const auto& held = *static_cast<const Matrix*>(held_.get());
    rows_ = held.rows();
    cols_ = held.cols();
    bytes_ = static_cast<std::size_t>(held.bytes());
    if constexpr (requires { held.source(); }) simple_ = held.source();
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  /// Bytes of the storage: codes and scales, or dense numbers.
  std::size_t bytes() const { return bytes_; }

  /// Writes element (row + i, col + j) to out[i · stride + j], i < count, j < length.
  void decode(Index row, Index count, Index col, Index length, float* out, Index stride) const {
    if (held_) decode_float_(held_.get(), row, count, col, length, out, stride);
  }
  void decode(Index row, Index count, Index col, Index length, double* out, Index stride) const {
    if (held_) decode_double_(held_.get(), row, count, col, length, out, stride);
  }

  /// Calls f with the simple source inside, if there is one, else with *this; it lives as long as this does.
  template <class F>
  void visit_source(const F& f) const {
    std::visit(
        [&](const auto& simple) {
          if constexpr (std::is_same_v<std::decay_t<decltype(simple)>, std::monostate>)
            f(*this);
          else
            f(simple);
        },
        simple_);
  }

 private:
  template <class Scalar>
  using Decode = void (*)(const void*, Index, Index, Index, Index, Scalar*, Index);
  template <class Matrix, class Scalar>
  static void decode_as(const void* held, Index row, Index count, Index col, Index length, Scalar* out, Index stride) {
    static_cast<const Matrix*>(held)->decode(row, count, col, length, out, stride);
  }

  std::shared_ptr<const void> held_;
  Decode<float> decode_float_ = nullptr;
  Decode<double> decode_double_ = nullptr;
  Index rows_ = 0, cols_ = 0;
  std::size_t bytes_ = 0;
  std::variant<std::monostate, BlockSource, DenseSource<float>, DenseSource<bfloat16>, DenseSource<half>> simple_;
};

}  // namespace lowrank::inline LOWRANK_ABI
