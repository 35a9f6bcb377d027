#pragma once

#include <concepts>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/kernels/format/source.hpp>
#include <lowrank/quant/format.hpp>
#include <lowrank/quant/table_blocks.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A frozen matrix W [out, in] in a 4- or 8-bit format; a Source. Owns its bytes or views a mapped file; copies share the bytes.
///
/// Built by quantize<Format>(w), or from existing storage, whose sizes are checked (ShapeError):
/// - Nf4, Fp4: `(rows, cols, codes, absmax [, table])`,
/// - with DoubleQuant: `(rows, cols, codes, absmax, nested_absmax, offset [, table [, nested_map]])`,
/// - ggml's formats: `(rows, cols, blocks)`.
template <class Format>
class QuantizedMatrix {
  static_assert(QuantFormat<Format>,
                "QuantizedMatrix<Format>: Format must be a quantized format, for example Nf4<64>, Nf4<64, DoubleQuant> or Q4_1");

 public:
  using Storage = typename Format::Storage;

  QuantizedMatrix() = default;
  explicit QuantizedMatrix(Storage storage) : storage_(std::move(storage)) {}
  template <class... Parts>
  requires(sizeof...(Parts) > 0 && std::constructible_from<Storage, Index, Index, Parts...>)
      QuantizedMatrix(Index rows, Index cols, Parts&&... parts)
      : storage_(rows, cols, std::forward<Parts>(parts)...) {}

  Index rows() const { return storage_.rows(); }
  Index cols() const { return storage_.cols(); }
  /// The format's name: nf4, Q4_1, …
  static constexpr std::string_view format() { return Format::name; }
  /// Bytes of codes and scales.
  std::size_t bytes() const { return storage_.bytes(); }
  /// The parts, for kernels and writers.
  const Storage& storage() const { return storage_; }

  /// The description that kernels decode and multiply by; points at the storage. Formats without one are decoded by `decode`.
  BlockSource source() const& requires requires(const Storage& storage) { storage.source(); }
  { return storage_.source(); }
  auto source() const&& = delete;  // a source refers to the matrix's numbers: give the matrix a name first

  /// Writes element (row + i, col + j) to out[i · stride + j], i < count, j < length; the value is computed in fp32.
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    storage_.decode(row, count, col, length, out, stride);
  }

 private:
  Storage storage_;
};

/// `QuantizedMatrix nf4 [48, 64], 4.5 bits a weight, 1.7 kB`.
template <class Format>
std::string describe(const QuantizedMatrix<Format>& q) {
  return "QuantizedMatrix " + quant::matrix_text(q.format(), q.rows(), q.cols(), q.bytes());
}

/// Quantizes a source of weights [out, in] (dense in any precision, or another quantized matrix); they are rounded to fp32 first.
///
/// Throws ValueError that names the first weight that is not finite. The same bytes for any number of threads.
template <class Format, Source Weights>
QuantizedMatrix<Format> quantize(const Weights& w) {
  static_assert(WritableFormat<Format>,
                "quantize<Format>: Format must be one that can be written: Nf4, Fp4 or one of ggml's (IQ1 to IQ3 and NVFP4 are only read)");
  return QuantizedMatrix<Format>(Format::Storage::encode(w));
}

/// The same with an importance of each column [cols], such as the mean square of its input: scales are found so that Σ importance · error²
/// is small, as ggml does with an importance matrix. ggml's formats only; Q8_0, MXFP4, TQ1_0 and TQ2_0 make no use of it. Throws
/// ShapeError.
template <class Format, Source Weights>
QuantizedMatrix<Format> quantize(const Weights& w, std::span<const float> importance) {
  static_assert(WritableFormat<Format> && !TableFormat<Format>,
                "quantize<Format>(w, importance): Format must be one of ggml's that can be written, such as Q4K");
  check<ShapeError>(importance.size() == static_cast<std::size_t>(w.cols()), "quantize", "the importance has ", importance.size(),
                    " numbers but the matrix is [", w.rows(), ", ", w.cols(), "]; give one for each column");
  return QuantizedMatrix<Format>(Format::Storage::encode(w, importance));
}

/// The same with scales by search: less error, readable by every reader of the format. Nf4 and Fp4 only.
template <class Format, Source Weights>
QuantizedMatrix<Format> quantize(const Weights& w, const Search& search) {
  static_assert(TableFormat<Format>, "quantize<Format>(w, Search{}): Format must be Nf4 or Fp4; ggml's formats have rules of their own");
  return QuantizedMatrix<Format>(Format::Storage::encode(w, search.fractions()));
}

}  // namespace lowrank::inline LOWRANK_ABI
