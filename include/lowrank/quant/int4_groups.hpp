#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include <lowrank/core/buffer.hpp>
#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/quant/format.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// Codes of four bits with a scale and an offset for each `group` neighbours of a row: w = scale · q + offset. What GPTQ and AWQ store.
///
/// Codes lie two a byte, the first of two neighbours in the high nibble; rows have an even number of columns that groups divide, 32 each or
/// a multiple. Scales are fp32, a pair of scale and offset a group, row by row.
class Int4Groups {
 public:
  /// codes of rows · cols / 2 bytes, pairs of 8 · rows · cols / group bytes; `format` is its name and must outlive it. Throws ShapeError.
  Int4Groups(std::string_view format, Index rows, Index cols, Index group, Buffer codes, Buffer pairs)
      : format_(format), rows_(rows), cols_(cols), group_(group), codes_(std::move(codes)), pairs_(std::move(pairs)) {
    quant::check_sizes(format, rows, cols);
    check<ShapeError>(group > 0 && group % 32 == 0 && cols % group == 0, format, "groups of ", group, " do not divide rows of ", cols,
                      " into runs of 32; use Int4Columns");
    quant::check_part(format, "codes", codes_.size(), static_cast<std::size_t>(rows * cols / 2), rows, cols);
    quant::check_part(format, "scales", pairs_.size(), static_cast<std::size_t>(rows * (cols / group)) * 8, rows, cols);
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  std::size_t bytes() const { return codes_.size() + pairs_.size(); }

  /// What kernels multiply by.
  BlockSource source() const& {
    BlockSource s{.data = codes_.data(), .row_count = rows_, .col_count = cols_, .pitch = cols_, .group = group_};
    for (int q = 0; q < 16; ++q) s.table[static_cast<std::size_t>(q)] = static_cast<float>(q);
    s.scales = pairs_.data();
    s.format = format_;
    s.read_scales = [](const BlockSource& source, Index first, Index count, float* scale, float* offset) {
      for (Index i = 0; i < count; ++i) {
        scale[i] = ArrayScales::float_at(source.scales, 2 * (first + i));
        offset[i] = ArrayScales::float_at(source.scales, 2 * (first + i) + 1);
      }
    };
    return s;
  }
  auto source() const&& = delete;  // a source refers to the matrix's numbers: give it a name first

  /// Writes element (row + i, col + j) to out[i · stride + j].
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    source().decode(row, count, col, length, out, stride);
  }

 private:
  std::string_view format_;
  Index rows_, cols_, group_;
  Buffer codes_, pairs_;
};

/// The same where each column names its group: GPTQ with act-order, and groups that do not divide a row. Decoded number by number.
class Int4Columns {
 public:
  /// group_of int32[cols], each below `groups`; pairs of 8 · rows · groups bytes. Throws ShapeError.
  Int4Columns(std::string_view format, Index rows, Index cols, Index groups, Buffer codes, Buffer pairs, Buffer group_of)
      : format_(format),
        rows_(rows),
        cols_(cols),
        groups_(groups),
        codes_(std::move(codes)),
        pairs_(std::move(pairs)),
        group_of_(std::move(group_of)) {
    quant::check_sizes(format, rows, cols);
    quant::check_part(format, "codes", codes_.size(), static_cast<std::size_t>(rows * cols / 2), rows, cols);
    quant::check_part(format, "scales", pairs_.size(), static_cast<std::size_t>(rows * groups) * 8, rows, cols);
    quant::check_part(format, "groups of columns", group_of_.size(), static_cast<std::size_t>(cols) * 4, rows, cols);
    for (Index j = 0; j < cols; ++j)
      check<ShapeError>(group_at(j) >= 0 && group_at(j) < groups, format, "column ", j, " is of group ", group_at(j), " but there are ",
                        groups);
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  std::string_view format() const { return format_; }
  std::size_t bytes() const { return codes_.size() + pairs_.size() + group_of_.size(); }

  /// Writes element (row + i, col + j) to out[i · stride + j].
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    for (Index i = 0; i < count; ++i) {
      const std::byte* pairs = pairs_.data() + 8 * (row + i) * groups_;
      const auto* codes = codes_.as<std::uint8_t>() + (row + i) * cols_ / 2;
      for (Index j = 0; j < length; ++j) {
        const Index at = col + j, group = group_at(at);
        const unsigned code = at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15u;
        const float scale = ArrayScales::float_at(pairs, 2 * group), offset = ArrayScales::float_at(pairs, 2 * group + 1);
        out[i * stride + j] = static_cast<Scalar>(rounded(static_cast<float>(code) * scale) + offset);
      }
    }
  }

 private:
  Index group_at(Index column) const { return quant::load<std::int32_t>(group_of_.data() + 4 * column); }

  std::string_view format_;
  Index rows_, cols_, groups_;
  Buffer codes_, pairs_, group_of_;
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
