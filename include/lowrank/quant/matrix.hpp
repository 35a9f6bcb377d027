#pragma once

#include <lowrank/core/matrix.hpp>
#include <lowrank/quant/dequantize.hpp>
#include <lowrank/quant/error.hpp>
#include <lowrank/quant/quantized_matrix.hpp>

/// Eigen matrices into a format and back; the rest of quant/ knows sources and pointers alone, and compiles without Eigen.

namespace lowrank::inline LOWRANK_ABI {

namespace quant {
/// A row-major matrix seen in place, rows any distance apart; another expression is evaluated once.
template <class Derived>
using RowMajorRef = Eigen::Ref<const Weight<typename Derived::Scalar>, 0, Eigen::OuterStride<>>;

/// Such a matrix as a source.
template <class Derived>
DenseSource<typename Derived::Scalar> dense(const RowMajorRef<Derived>& w) {
  return {w.data(), w.rows(), w.cols(), w.outerStride()};
}
}  // namespace quant

/// quantize for an Eigen matrix of float or double.
template <class Format, class Derived, class... Rule>
QuantizedMatrix<Format> quantize(const Eigen::DenseBase<Derived>& w, const Rule&... rule) {
  const quant::RowMajorRef<Derived> ref(w.derived());
  return quantize<Format>(quant::dense<Derived>(ref), rule...);
}

/// dequantize_into for a row-major Eigen matrix, map or block of float [out, in].
template <class Format>
void dequantize_into(const QuantizedMatrix<Format>& q, Eigen::Ref<Weight<float>, 0, Eigen::OuterStride<>> out) {
  check<ShapeError>(out.rows() == q.rows() && out.cols() == q.cols(), "dequantize_into", "out is [", out.rows(), ", ", out.cols(),
                    "] but the matrix is [", q.rows(), ", ", q.cols(), "]; their shapes must agree");
  quant::decode_matrix(q, out.data(), out.outerStride());
}

/// The matrix in fp32 [out, in]: exactly what decode writes and every product multiplies with.
///
/// The memory is fresh, and touching it the first time costs more than decoding does; dequantize_into can reuse it.
template <class Format>
Weight<float> dequantize(const QuantizedMatrix<Format>& q) {
  Weight<float> w(q.rows(), q.cols());
  platform::prefer_large_pages(w.data(), static_cast<std::size_t>(w.size()) * sizeof(float));
  quant::decode_matrix(q, w.data(), w.cols());
  return w;
}

/// quantization_error for an Eigen matrix of float or double.
template <class Derived, class Format>
QuantizationError quantization_error(const Eigen::DenseBase<Derived>& w, const QuantizedMatrix<Format>& q) {
  const quant::RowMajorRef<Derived> ref(w.derived());
  return quantization_error(quant::dense<Derived>(ref), q);
}

}  // namespace lowrank::inline LOWRANK_ABI
