#pragma once

/// What the kernels for few tokens share on every target: how the chunks of 32 elements of a piece's rows lie, and where their scales are.

#include <algorithm>
#include <bit>
#include <cmath>

#include <lowrank/kernels/driver/pieces.hpp>
#include <lowrank/kernels/target/table.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels::few {

/// How 32 elements of a row lie in memory: the inner loop is compiled for each.
enum class Layout {
  pairs,        ///< 16 bytes, even elements in the high nibbles, odd ones in the low
  halves,       ///< 16 bytes, elements 0 … 15 in the low nibbles, 16 … 31 in the high
  long_halves,  ///< 32 bytes, an even chunk in the low nibbles, the odd one after it in the high
  bytes,        ///< 32 signed bytes
  fp32,
  bf16,
  half
};

inline Layout layout_of(const Piece& piece) {
  if (piece.kind == Piece::Kind::fp32) return Layout::fp32;
  if (piece.kind == Piece::Kind::bf16) return Layout::bf16;
  if (piece.kind == Piece::Kind::half) return Layout::half;
  if (piece.blocks.order == CodeOrder::nibble_pairs) return Layout::pairs;
  if (piece.blocks.order == CodeOrder::bytes) return Layout::bytes;
  return piece.blocks.run == 16 ? Layout::halves : Layout::long_halves;
}

/// Where the scale and offset of a chunk come from.
enum class Scaling {
  array,         ///< float32, one a group; no offset
  half,          ///< half precision inside the block of a chunk; no offset
  half_offset,   ///< the same with the offset behind the scale
  window,        ///< double quantization: read ahead, 128 groups at a time; no offset
  window_offset  ///< the same for anything else
};

inline Scaling scaling_of(const BlockSource& s) {
  if (s.order == CodeOrder::nibble_pairs) {
    if (s.read_scales == ArrayScales::read) return Scaling::array;
    return s.read_scales == DoubleQuantizedScales::read ? Scaling::window : Scaling::window_offset;
  }
  if (s.read_scales != HalfScales::read || s.group != 32 || s.block != 32 || s.run != 16) return Scaling::window_offset;
  if (s.offset_at < 0) return Scaling::half;
  return s.offset_at == s.scale_at + 2 ? Scaling::half_offset : Scaling::window_offset;
}

constexpr bool has_offset(Scaling scaling) { return scaling == Scaling::half_offset || scaling == Scaling::window_offset; }
constexpr bool has_window(Scaling scaling) { return scaling == Scaling::window || scaling == Scaling::window_offset; }

/// Rows of blocks side by side: where their chunks lie, and the scales that were read ahead. Rows past the last repeat it.
template <Layout L, Scaling M, int Rows>
struct RowGroup {
  static constexpr bool has_plain_blocks = L == Layout::pairs || !few::has_window(M);  ///< a chunk a block
  static constexpr bool has_window = few::has_window(M);
  static constexpr Index window_groups = 128;

  const BlockSource& source;
  const std::byte* row[Rows];
  const std::byte* scale_row[Rows];  ///< Scaling::array: where a row's scales begin
  Index first_row[Rows];
  Index first_group = 0;   ///< of those read ahead
  const std::byte* ahead;  ///< where prefetching begins
  Index chunk_pitch;       ///< bytes from one chunk of a row to the next, on average
  Index group_shift, block_shift = 5, block_bytes = 16, codes_at = 0;
  float scale[has_window ? Rows : 1][has_window ? window_groups : 1], offset[has_window ? Rows : 1][has_window ? window_groups : 1];

  RowGroup(const FewTokens& p, Index begin) : source(p.piece->blocks) {
    const Index row_bytes = source.row_bytes(), row_groups = source.pitch / source.group;
    for (int r = 0; r < Rows; ++r) {
      first_row[r] = p.row + (begin + r < p.rows ? begin + r : p.rows - 1);
      row[r] = source.data + first_row[r] * row_bytes;
      scale_row[r] = M == Scaling::array ? source.scales + first_row[r] * row_groups * 4 : nullptr;
    }
    ahead = row[0] + ceil_div(4096, Rows * row_bytes) * Rows * row_bytes;
    chunk_pitch = row_bytes / p.chunks;
    group_shift = std::countr_zero(static_cast<std::size_t>(source.group));
    if (L == Layout::pairs) return;
    block_shift = std::countr_zero(static_cast<std::size_t>(source.block));
    block_bytes = source.block_bytes;
    codes_at = source.codes_at;
  }

  /// Asks for the rows that come 4 KiB or more later, a chunk's share at a time: the processor's own prefetching ends with every page.
  [[gnu::always_inline]] void prefetch(Index c) const {
    LOWRANK_UNROLL
    for (Index line = 0; line < (Rows * 20 + 63) / 64; ++line) __builtin_prefetch(ahead + c * (Rows * chunk_pitch) + 64 * line);
  }

  /// Chunks whose scales are at hand after read_ahead, which begins with the group of a chunk.
  Index window() const { return has_window ? window_groups << group_shift >> 5 : Index{1} << 40; }
  void read_ahead(Index chunk, Index end) {
    if constexpr (has_window) {
      const Index groups = source.pitch >> group_shift, last = (end * 32 - 1) >> group_shift;
      first_group = chunk * 32 >> group_shift;
      const Index count = last - first_group < window_groups ? last - first_group + 1 : window_groups;
      for (int r = 0; r < Rows; ++r) source.read_scales(source, first_row[r] * groups + first_group, count, scale[r], offset[r]);
    }
  }

  /// Byte of the row at which the block that holds chunk c begins, and of the block at which the chunk's codes do.
  [[gnu::always_inline]] Index block_at(Index c) const { return (has_plain_blocks ? c : c >> (block_shift - 5)) * block_bytes; }
  [[gnu::always_inline]] Index inside(Index c) const {
    if constexpr (has_plain_blocks) return codes_at;
    const Index position = c & ((Index{1} << (block_shift - 5)) - 1);
    return codes_at + (L == Layout::long_halves ? position / 2 * 32 : position * (L == Layout::bytes ? 32 : 16));
  }
  /// Group of chunk c: in the row (Scaling::array), or in what was read ahead.
  [[gnu::always_inline]] Index group_of(Index c) const { return (c * 32 >> group_shift) - first_group; }
};

inline void store_sum(const FewTokens& p, Index row, Index token, float sum) {
  if (row >= p.rows || token >= p.tokens) return;
  float& y = p.y[token * p.ldy + row];
  y = p.accumulate ? y + p.piece->scale * sum : p.piece->scale * sum;
}

/// A code table in signed bytes: table[c] = unit · entry[c], exact where the entries are small whole numbers.
struct SignedTable {
  alignas(16) std::int8_t entry[16] = {};
  float unit = 1;

  explicit SignedTable(const BlockSource& s) {
    if (s.order == CodeOrder::bytes) return;
    float largest = 0;
    bool is_whole = true;
    for (float number : s.table) {
      largest = std::max(largest, std::abs(number));
      is_whole = is_whole && number == std::floor(number);
    }
    if ((!is_whole || largest > 127) && largest > 0) unit = largest / 127;
    for (std::size_t c = 0; c < 16; ++c) entry[c] = static_cast<std::int8_t>(std::lrint(s.table[c] / unit));
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::few
