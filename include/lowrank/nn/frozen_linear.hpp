#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/shape.hpp>
#include <lowrank/nn/recorded_group.hpp>
#include <lowrank/quant/matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A dense matrix [rows, cols] of float, bfloat16 or half in a Buffer, owned or mapped; copies share it.
template <class Element>
class StoredMatrix : public DenseSource<Element> {
 public:
  StoredMatrix(Index rows, Index cols, Buffer buffer) : DenseSource<Element>(buffer.as<Element>(), rows, cols), buffer_(std::move(buffer)) {
    const std::size_t needed = static_cast<std::size_t>(element_count("stored_matrix", "the matrix", {rows, cols})) * sizeof(Element);
    check<ShapeError>(buffer_.size() == needed, "stored_matrix", "the buffer has ", buffer_.size(), " bytes but [", rows, ", ", cols,
                      "] of ", sizeof(Element), " bytes each needs ", needed);
    check<ValueError>(reinterpret_cast<std::uintptr_t>(buffer_.data()) % alignof(Element) == 0, "stored_matrix",
                      "the bytes are not aligned for their element type; copy them into Buffer::allocate");
  }
  const Element* data() const& { return DenseSource<Element>::data(); }
  const Element* data() const&& = delete;  // the numbers lie in the matrix's buffer: give the matrix a name first
  std::size_t bytes() const { return buffer_.size(); }
  const Buffer& buffer() const { return buffer_; }
  DenseSource<Element> source() const& { return *this; }
  auto source() const&& = delete;  // a source refers to the matrix's numbers: give the matrix a name first

 private:
  Buffer buffer_;
};

/// `StoredMatrix bf16 [48, 64], 16 bits a weight, 6.1 kB`.
template <class Element>
std::string describe(const StoredMatrix<Element>& w) {
  return "StoredMatrix " + quant::matrix_text(WeightView(w).format(), w.rows(), w.cols(), w.bytes());
}

namespace detail {
// What products read: a stored dense matrix as the plain DenseSource that they know, any other source as it is.
template <class Matrix>
const Matrix& source_of(const Matrix& matrix) {
  return matrix;
}
template <class Element>
DenseSource<Element> source_of(const StoredMatrix<Element>& matrix) {
  return matrix;
}
}  // namespace detail

/// Frozen layer Y = W X + b over any source that is a value: nothing of W is ever trained, copied dense or kept for the backward pass.
template <Source Matrix, class S = float>
class SourceLinear {
 public:
  using Scalar = S;
  static constexpr std::string_view kind = "SourceLinear";

  /// Weight [out, in], bias [out] or none (frozen until set otherwise).
  explicit SourceLinear(Matrix weight, Column<S> bias = {}) : weight_(std::move(weight)) {
    check<ShapeError>(bias.size() == 0 || bias.size() == weight_.rows(), "linear", "bias is [", bias.size(), "] but the weight is [",
                      weight_.rows(), ", ", weight_.cols(), "]; the bias must have one number an output");
    bias_.name = "bias";
    bias_.value = bias;
    bias_.trainable = false;
  }

  Index in_features() const { return weight_.cols(); }
  Index out_features() const { return weight_.rows(); }

  /// W X + b for X [in, T], without a tape. Throws ShapeError.
  template <MatrixLike X>
  auto operator()(const X& x) const {
    auto y = product(x);
    if constexpr (!detail::Misfit<X, S, Dynamic>) detail::add_bias(y, bias_);
    return y;
  }
  /// The same, recorded if X needs a gradient. Keeps nothing of X.
  Var<S> operator()(const Var<S>& x) & { return detail::adapted(*this, {}, {}, x); }
  Var<S> operator()(const Var<S>& x) && = delete;  // the recording refers to the layer: give the layer a name first

  /// W X [out, T].
  template <MatrixLike X>
  auto product(const X& x) const {
    detail::check_input("linear", x.rows(), x.cols(), in_features());
    if constexpr (detail::Misfit<X, S, Dynamic>) {
      return detail::refuse<X, S, Dynamic>();
    } else {
      return multiply(source(), x, compute_);
    }
  }
  /// Wᵀ G [in, T].
  template <MatrixLike G>
  auto transposed_product(const G& g) const {
    detail::check_input("linear transposed", g.rows(), g.cols(), out_features());
    if constexpr (detail::Misfit<G, S, Dynamic>) {
      return detail::refuse<G, S, Dynamic>();
    } else {
      return multiply_transposed(source(), g, compute_);
    }
  }

  /// The weight where it lies.
  decltype(auto) source() const& { return detail::source_of(weight_); }
  auto source() const&& = delete;  // a source refers to the layer's numbers: give the layer a name first
  const Matrix& weight() const { return weight_; }
  /// Bytes of the weight as it is stored.
  std::size_t weight_bytes() const { return static_cast<std::size_t>(weight_.bytes()); }
  /// Empty when the layer has none.
  Parameter<S>& bias() { return bias_; }
  const Parameter<S>& bias() const { return bias_; }

  static constexpr bool weight_trainable() { return false; }
  /// The bias alone can be trained; the weight is frozen for good.
  void set_trainable(bool trainable) { bias_.trainable = trainable; }
  Compute compute() const { return compute_; }
  void set_compute(Compute compute) { compute_ = compute; }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_layer(visitor, *this);
    if (!bias_.empty()) visitor(bias_);
  }

 private:
  Matrix weight_;
  Parameter<S> bias_;
  Compute compute_ = Compute::fp32;
};

/// Frozen dense layer over a Buffer: a bfloat16, half or float tensor used straight from its mapped file.
template <class Element, class S = float>
class FrozenLinear : public SourceLinear<StoredMatrix<Element>, S> {
 public:
  using SourceLinear<StoredMatrix<Element>, S>::SourceLinear;
  static constexpr std::string_view kind = "FrozenLinear";
};

/// Frozen layer Y = W X + b over a quantized weight; copies share the bytes. S is the scalar of activations.
template <class Format, class S = float>
class QuantizedLinear : public SourceLinear<QuantizedMatrix<Format>, S> {
 public:
  using SourceLinear<QuantizedMatrix<Format>, S>::SourceLinear;
  static constexpr std::string_view kind = "QuantizedLinear";
};

template <class Format>
QuantizedLinear(QuantizedMatrix<Format>) -> QuantizedLinear<Format, float>;
template <class Format, class S>
QuantizedLinear(QuantizedMatrix<Format>, Column<S>) -> QuantizedLinear<Format, S>;

}  // namespace lowrank::inline LOWRANK_ABI
