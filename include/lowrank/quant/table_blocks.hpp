#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/core/buffer.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/encoding.hpp>
#include <lowrank/quant/format.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// Scale by search: of `points` scales from `highest` · absmax down to `lowest` · absmax, the one whose codes promise the smallest squared
/// error, refitted to them by least squares; absmax itself where that is no better.
///
/// For normal weights 9, 7.5, 6 % less error than with absmax at blocks of 32, 64, 128; the bytes are read as any others. Costs about
/// `points` times the encoding. The rule is that of kernels::scalar::searched_scale.
struct Search {
  int points = 12;
  float lowest = 0.7f, highest = 1.1f;

  /// In units of the largest magnitude. Throws ValueError for no points, or for bounds that are no search.
  std::vector<float> fractions() const {
    check<ValueError>(points >= 1 && lowest > 0 && lowest <= highest && highest <= 2, "quantize", "a search of ", points, " points from ",
                      lowest, " to ", highest, " of the largest magnitude; give at least 1 point and bounds in (0, 2], the lowest first");
    std::vector<float> all(static_cast<std::size_t>(points));
    const float step = points > 1 ? (highest - lowest) / static_cast<float>(points - 1) : 0.0f;
    for (int k = 0; k < points; ++k) all[static_cast<std::size_t>(k)] = std::fma(-step, static_cast<float>(k), highest);
    return all;
  }
};

namespace quant {

/// Codes of a flattened matrix, two a byte, and fp32 scales, one a block.
struct TableCodes {
  Buffer codes, absmax;
};

/// Quantizes every block of any table format. Throws ValueError that names the first weight that is not finite.
template <Source Weights>
TableCodes encode_table(const Weights& w, const kernels::TableEncoder& encoder) {
  const Index size = w.rows() * w.cols(), block = encoder.block;
  const kernels::QuantizeKernels& target = kernels::current_target().quantize;
  TableCodes made{Buffer::allocate(static_cast<std::size_t>((size + 1) / 2)),
                  Buffer::allocate(4 * static_cast<std::size_t>(ceil_div(size, block)))};
  FirstFailure failure;
  parallel_ranges(ceil_div(size, chunk), encode_grain / chunk, [&](Index begin, Index end) {
    const Index stop = std::min(size, end * chunk);
    const float* x = flat_floats(w, begin * chunk, stop - begin * chunk);
    for (Index first = begin * chunk; first < stop; first += chunk, x += chunk) {
      const Index count = std::min(chunk, stop - first), whole = count / block;
      auto* const to = made.codes.mutable_as<std::uint8_t>() + first / 2;
      float* const scales = made.absmax.mutable_as<float>() + first / block;
      const Index done = target.encode_table(encoder, x, whole, to, scales), at = done * block;
      if (done < whole || (at < count && !kernels::scalar::encode_block(encoder, x + at, count - at, to + at / 2, scales + done)))
        failure.record(first + at);
    }
  });
  failure.check(w, block);
  return made;
}

}  // namespace quant

/// bitsandbytes' storage: 4-bit codes of the flattened matrix, weight 2i in the high nibble of byte i, 2i + 1 in the low one, and a
/// scale for each `block` consecutive weights; blocks may straddle rows, the last one may be short.
///
/// The rule is that of bitsandbytes' CUDA kernel (the constants of Nf4 and Fp4): t = w · (1 / absmax), in fp32. Where its CPU path
/// gives other bytes or values:
/// 1. a zero block: codes 0 here (NF4 byte 0x00, decoding to -0); the CPU path writes NF4 byte 0x77;
/// 2. a short last block: the CPU path divides by absmax, which can move a weight that lies within rounding of a threshold; and it
///    stores absmax 1e-38 where that block is zero;
/// 3. FP4, a weight within 20 ulp of a threshold: CUDA's constants and its tie rule (smaller magnitude) against midpoints of signed codes;
/// 4. FP4, |t| below the first threshold: +0 and -0 here keep the sign of t; the CPU path has them swapped;
/// 5. DoubleQuant: the nearest 8-bit code here; the CPU path takes the code nearest to t rounded to 65,536 bins;
/// 6. dequantization with cols no multiple of the block but of 16: its AVX-512 path takes scale row · ⌊cols / block⌋ + col / block.
/// Departures from CUDA: weights that are not finite are an error (CUDA turns NaN into -absmax), and a block whose maximum is
/// subnormal is stored as the zero block that CUDA computes with it.
template <class ScaleStorage>
class TableStorage {
 public:
  using Scales = typename ScaleStorage::Storage;

  TableStorage() = default;
  /// Existing parts, owned or mapped: codes of (rows · cols + 1) / 2 bytes, and scales of rows · cols / block blocks, rounded up. Throws
  /// ShapeError that begins with the format's name.
  TableStorage(std::string_view format, Index block, Index rows, Index cols, Buffer codes, Scales scales,
               const std::array<float, 16>& table)
      : block_(block), rows_(rows), cols_(cols), codes_(std::move(codes)), scales_(std::move(scales)), table_(table) {
    quant::check_sizes(format, rows, cols);
    quant::check_part(format, "codes", codes_.size(), static_cast<std::size_t>((rows * cols + 1) / 2), rows, cols);
  }

  /// Quantizes every block on its own, with the largest magnitude as its scale, or the best of `fractions` of it (Search).
  /// Throws ValueError that names the first weight that is not finite.
  template <Source Weights>
  static TableStorage encode(std::string_view format, const Weights& w, const kernels::TableEncoder& encoder,
                             const std::array<float, 16>& table) {
    quant::TableCodes made = quant::encode_table(w, encoder);
    return {format, encoder.block, w.rows(), w.cols(), std::move(made.codes), Scales::encode(format, std::move(made.absmax)), table};
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  /// Weights that share a scale.
  Index block() const { return block_; }
  /// Codes and scales; the tables belong to the format.
  std::size_t bytes() const { return codes_.size() + scales_.bytes(); }
  Index blocks() const { return ceil_div(rows_ * cols_, block_); }
  const Buffer& codes() const { return codes_; }
  const Scales& scales() const { return scales_; }
  const std::array<float, 16>& table() const { return table_; }

  /// What kernels multiply by.
  BlockSource source() const& {
    BlockSource s{.data = codes_.data(), .row_count = rows_, .col_count = cols_, .pitch = cols_, .group = block_, .table = table_};
    scales_.describe(s);
    const bool is_nf4 = table_[0] == -1;  // of fp4 it is 0
    if (ScaleStorage::is_double_quantized)
      s.format = is_nf4 ? "nf4-dq" : "fp4-dq";
    else
      s.format = is_nf4 ? "nf4" : "fp4";
    return s;
  }
  auto source() const&& = delete;  // a source refers to the storage's numbers: give it a name first

  /// Writes element (row + i, col + j) to out[i · stride + j].
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    for (Index i = 0; i < count; ++i) decode_run((row + i) * cols_ + col, length, out + i * stride);
  }

 private:
  template <class Scalar>
  void decode_run(Index begin, Index length, Scalar* out) const {
    const Index end = begin + length;
    for (Index at = begin; at < end;) {
      const Index block = at / block_, stop = std::min(end, (block + 1) * block_);
      std::array<Scalar, 16> values;  // the table, scaled once a block
      std::transform(table_.begin(), table_.end(), values.begin(), [s = scales_[block]](float v) { return static_cast<Scalar>(v * s); });
      decode_nibbles(codes_.as<std::uint8_t>(), at, stop, values, out);
      out += stop - at;
      at = stop;
    }
  }

  template <class Scalar>
  static void decode_nibbles(const std::uint8_t* codes, Index at, Index stop, const std::array<Scalar, 16>& values, Scalar* out) {
    if (at % 2 != 0) *out++ = values[codes[at++ / 2] & 15u];
    const std::uint8_t* pair = codes + at / 2;
    for (; at + 1 < stop; at += 2, ++pair, out += 2) {
      out[0] = values[*pair >> 4];
      out[1] = values[*pair & 15u];
    }
    if (at < stop) *out = values[*pair >> 4];
  }

  Index block_ = 64, rows_ = 0, cols_ = 0;
  Buffer codes_;
  Scales scales_;
  std::array<float, 16> table_ = {};
};

/// That storage with the block, the table and the encoder of a format.
template <class Format>
class TableBlocks : public TableStorage<typename Format::Scales> {
 public:
  using Base = TableStorage<typename Format::Scales>;
  using Scales = typename Base::Scales;

  TableBlocks() : TableBlocks(0, 0, Buffer(), Scales()) {}
  /// A storage whose block is the format's. Throws ShapeError for another.
  explicit TableBlocks(Base storage) : Base(std::move(storage)) {
    check<ShapeError>(this->block() == Format::block, Format::name, "the storage has blocks of ", this->block(), ", the format blocks of ",
                      Format::block, "; name the format that was stored");
  }
  /// Existing parts, and the file's own table, if it has one. Throws ShapeError.
  TableBlocks(Index rows, Index cols, Buffer codes, Scales scales, const std::array<float, 16>& table = Format::table)
      : Base(Format::name, Format::block, rows, cols, std::move(codes), std::move(scales), table) {}
  /// The same with plain scales: absmax fp32[blocks].
  TableBlocks(Index rows, Index cols, Buffer codes, Buffer absmax,
              const std::array<float, 16>& table = Format::table) requires(!Format::Scales::is_double_quantized)
      : TableBlocks(rows, cols, std::move(codes), Scales(Format::name, blocks_of(rows, cols), std::move(absmax)), table) {}
  /// The same with double-quantized scales: absmax uint8[blocks], nested_absmax fp32[ceil(blocks / 256)], their offset and code.
  TableBlocks(Index rows, Index cols, Buffer codes, Buffer absmax, Buffer nested_absmax, float offset,
              const std::array<float, 16>& table = Format::table,
              const std::array<float, 256>& nested_map = quant::dynamic_map()) requires(Format::Scales::is_double_quantized)
      : TableBlocks(rows, cols, std::move(codes),
                    Scales(Format::name, blocks_of(rows, cols), std::move(absmax), std::move(nested_absmax), offset, nested_map), table) {}

  /// TableStorage::encode with the format's own encoder.
  template <Source Weights>
  static TableBlocks encode(const Weights& w, std::span<const float> fractions = {}) {
    return TableBlocks(Base::encode(Format::name, w, {Format::rule, Format::block, fractions}, Format::table));
  }

 private:
  static Index blocks_of(Index rows, Index cols) {
    quant::check_sizes(Format::name, rows, cols);
    return ceil_div(rows * cols, Format::block);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
