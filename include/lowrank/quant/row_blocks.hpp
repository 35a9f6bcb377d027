#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/core/buffer.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/quant/block_search.hpp>
#include <lowrank/quant/encoding.hpp>
#include <lowrank/quant/format.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// ggml's storage: each row is ceil(cols / block) blocks of `block_bytes`, a scale and its codes side by side.
///
/// A file holds whole blocks only. Here a row may end inside a block: its last block is padded with zeros that do not influence the
/// scale and are never read. Format gives `block`, `block_bytes`, `decode(block, out)` and, if it can be written,
/// `encode(x, count, block) -> bool` (false: the scale does not fit); `encode_blocks`, if given, is the kernel for whole blocks, and
/// `encode(x, count, block, importance)` weighs errors.
template <class Format>
class RowBlocks {
 public:
  RowBlocks() = default;

  /// Existing blocks, owned or mapped. Throws ShapeError when their size is not rows · ceil(cols / block) · block_bytes.
  RowBlocks(Index rows, Index cols, Buffer blocks) : rows_(rows), cols_(cols), blocks_(std::move(blocks)) {
    quant::check_sizes(Format::name, rows, cols);
    quant::check_part(Format::name, "blocks", blocks_.size(), static_cast<std::size_t>(rows * row_bytes()), rows, cols);
  }

  /// Quantizes every block on its own, by an importance of each column where there is one. Throws ValueError that names the first weight
  /// that is not finite.
  template <Source Weights>
  static RowBlocks encode(const Weights& w, std::span<const float> importance = {}) {
    const Index rows = w.rows(), cols = w.cols();
    const Index row_bytes = ceil_div(cols, Format::block) * Format::block_bytes;
    Buffer blocks = Buffer::allocate(static_cast<std::size_t>(rows * row_bytes));
    auto* const bytes = blocks.mutable_as<std::byte>();
    quant::FirstFailure failure;
    parallel_ranges(rows, std::max<Index>(1, quant::encode_grain / std::max<Index>(1, cols)), [&](Index begin, Index end) {
      const auto [x, stride] = quant::row_floats(w, begin, end - begin);
      for (Index row = begin; row < end; ++row) {
        const Index done = encode_run(x + (row - begin) * stride, cols, bytes + row * row_bytes, importance);
        if (done < cols) failure.record(row * cols + done);
      }
    });
    failure.check(w, std::min(Format::block, std::max<Index>(1, cols)));
    return {rows, cols, std::move(blocks)};
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  std::size_t bytes() const { return blocks_.size(); }
  /// Bytes from one row to the next.
  Index row_bytes() const { return ceil_div(cols_, Format::block) * Format::block_bytes; }
  const Buffer& blocks() const { return blocks_; }

  /// What kernels multiply by, for formats that are a table, a scale and an offset.
  BlockSource source() const& requires requires(BlockSource& s) { Format::describe(s); }
  {
    BlockSource s{.data = blocks_.data(), .row_count = rows_, .col_count = cols_, .pitch = round_up(cols_, Format::block)};
    s.group = 32;
    s.block = Format::block;
    s.block_bytes = Format::block_bytes;
    s.format = Format::name;
    Format::describe(s);
    return s;
  }
  auto source() const&& = delete;  // a source refers to the storage's numbers: give it a name first

  /// Writes element (row + i, col + j) to out[i · stride + j].
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    for (Index i = 0; i < count; ++i) decode_run(blocks_.data() + (row + i) * row_bytes(), col, length, out + i * stride);
  }

 private:
  /// Elements before the first block that cannot be stored; `count` if there is none.
  static Index encode_run(const float* x, Index count, std::byte* to, std::span<const float> importance) {
    Index done = 0;
    constexpr bool can_weigh = requires(const quant::BlockImportance* given) { Format::encode(x, count, to, given); };
    const bool weighs = can_weigh && !importance.empty();
    if constexpr (requires { Format::encode_blocks; }) {
      const auto encode_blocks = kernels::current_target().quantize.*Format::encode_blocks;
      if (encode_blocks != nullptr && !weighs) done = encode_blocks(x, count / Format::block, to) * Format::block;
    }
    const float mean_square = weighs ? quant::sum_of_squares(x, count) / static_cast<float>(count) : 0.0f;
    for (; done < count; done += Format::block) {
      const Index length = std::min(Format::block, count - done);
      std::byte* const block = to + done / Format::block * Format::block_bytes;
      if (!is_finite(kernels::scalar::largest_magnitude(x + done, length))) return done;
      if constexpr (can_weigh) {
        const quant::BlockImportance given{weighs ? importance.data() + done : nullptr, mean_square};
        if (weighs ? !Format::encode(x + done, length, block, &given) : !Format::encode(x + done, length, block)) return done;
      } else if (!Format::encode(x + done, length, block)) {
        return done;
      }
    }
    return count;
  }

  template <class Scalar>
  static void decode_run(const std::byte* row, Index col, Index length, Scalar* out) {
    const Index end = col + length;
    for (Index at = col; at < end;) {
      const Index index = at / Format::block, skip = at - index * Format::block, run = std::min(Format::block - skip, end - at);
      const std::byte* block = row + index * Format::block_bytes;
      if (std::is_same_v<Scalar, float> && run == Format::block) {
        Format::decode(block, reinterpret_cast<float*>(out));
      } else {
        float values[Format::block];
        Format::decode(block, values);
        std::transform(values + skip, values + skip + run, out, [](float x) { return static_cast<Scalar>(x); });
      }
      out += run;
      at += run;
    }
  }

  Index rows_ = 0, cols_ = 0;
  Buffer blocks_;
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
