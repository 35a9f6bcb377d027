#pragma once

/// A weight W [rows, cols] where it lies, in any format. A weight's type is erased once, here; products, merging and devices read this.

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <lowrank/core/print.hpp>
#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/kernels/format/source.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

class WeightView;

namespace detail {
template <class S, class... Views>
inline constexpr bool is_none_of = !(std::is_same_v<S, Views> || ...);

/// A source that a view of it refers to, and not only to its numbers.
template <class S>
concept HeldSource =
    is_none_of<S, WeightView, BlockSource, DenseSource<float>, DenseSource<BFloat16>, DenseSource<Half>, DenseSource<double>> && Source<S>;
}  // namespace detail

/// Points at the numbers of a source, which must outlive it; itself a Source.
///
/// Dense numbers and blocks are seen as they lie, so that a temporary source of them (a layer's source()) may go; every other source is
/// decoded through a function pointer a window, and a temporary of such is refused.
class WeightView {
 public:
  enum class Kind : unsigned char { fp32, bf16, half, fp64, blocks, other };
  template <class Scalar>
  using Decode = void (*)(const void* source, Index row, Index count, Index col, Index length, Scalar* out, Index stride);

  WeightView() = default;
  WeightView(const DenseSource<float>& s) : WeightView(Kind::fp32, s) {}
  WeightView(const DenseSource<BFloat16>& s) : WeightView(Kind::bf16, s) {}
  WeightView(const DenseSource<Half>& s) : WeightView(Kind::half, s) {}
  WeightView(const DenseSource<double>& s) : WeightView(Kind::fp64, s) {}
  WeightView(const BlockSource& s) : kind_(Kind::blocks), rows_(s.rows()), cols_(s.cols()), blocks_(s) {}
  template <Source S>
  requires(!std::is_same_v<S, WeightView>) WeightView(const S& source) {
    if constexpr (requires { WeightView(source.view()); }) {
      *this = source.view();
    } else if constexpr (requires { WeightView(source.source()); }) {
      *this = WeightView(source.source());
    } else {
      rows_ = source.rows(), cols_ = source.cols(), data_ = &source;
      decode_float_ = decode_as<S, float>;
      decode_double_ = decode_as<S, double>;
      if constexpr (requires { std::string_view(source.format()); }) format_ = source.format();
    }
  }
  template <detail::HeldSource S>
  WeightView(const S&&) = delete;  // a view refers to its source: give the source a name first

  Kind kind() const { return kind_; }
  /// How it is stored, for people: fp32, bf16, fp16, fp64, the name of a quantized format, or "source".
  std::string_view format() const {
    constexpr std::string_view dense[] = {"fp32", "bf16", "fp16", "fp64"};
    return kind_ == Kind::blocks ? blocks_.format : kind_ == Kind::other ? format_ : dense[static_cast<int>(kind_)];
  }
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  /// Element (0, 0) of a dense matrix; the source itself for `other`.
  const void* data() const { return data_; }
  /// Of a dense matrix's rows, in elements.
  Index stride() const { return stride_; }
  const BlockSource& blocks() const { return blocks_; }
  /// Of `other`: what decodes data().
  Decode<float> decoder() const { return decode_float_; }

  /// Writes element (row + i, col + j) to out[i · stride + j], i < count, j < length; Scalar is float or double.
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    switch (kind_) {
      case Kind::fp32:
        return dense<float>().decode(row, count, col, length, out, stride);
      case Kind::bf16:
        return dense<BFloat16>().decode(row, count, col, length, out, stride);
      case Kind::half:
        return dense<lowrank::Half>().decode(row, count, col, length, out, stride);
      case Kind::fp64:
        return dense<double>().decode(row, count, col, length, out, stride);
      case Kind::blocks:
        return blocks_.decode(row, count, col, length, out, stride);
      case Kind::other:
        if constexpr (std::is_same_v<Scalar, float>)
          return decode_float_(data_, row, count, col, length, out, stride);
        else
          return decode_double_(data_, row, count, col, length, out, stride);
    }
  }

  /// A dense matrix as what it is.
  template <class Element>
  DenseSource<Element> dense() const {
    return {static_cast<const Element*>(data_), rows_, cols_, stride_};
  }

 private:
  template <class Element>
  WeightView(Kind kind, const DenseSource<Element>& s)
      : kind_(kind), rows_(s.rows()), cols_(s.cols()), stride_(s.stride()), data_(s.data()) {}
  template <class S, class Scalar>
  static void decode_as(const void* held, Index row, Index count, Index col, Index length, Scalar* out, Index stride) {
    const S& source = *static_cast<const S*>(held);
    if constexpr (requires { source.decode(row, count, col, length, out, stride); }) {
      source.decode(row, count, col, length, out, stride);
    } else {  // a source that writes float alone
      std::vector<float> numbers(static_cast<std::size_t>(count * length));
      source.decode(row, count, col, length, numbers.data(), length);
      for (Index i = 0; i < count; ++i)
        for (Index j = 0; j < length; ++j) out[i * stride + j] = static_cast<Scalar>(numbers[static_cast<std::size_t>(i * length + j)]);
    }
  }

  Kind kind_ = Kind::other;
  Index rows_ = 0, cols_ = 0, stride_ = 0;
  const void* data_ = nullptr;
  BlockSource blocks_ = {};
  Decode<float> decode_float_ = nullptr;
  Decode<double> decode_double_ = nullptr;
  std::string_view format_ = "source";
};

/// `nf4 [48, 64]`.
inline std::string describe(const WeightView& w) { return concat(w.format(), " [", w.rows(), ", ", w.cols(), ']'); }

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
