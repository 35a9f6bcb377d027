#pragma once

/// What the kernels for few tokens share on every target: how the chunks of 32 elements of a weight's rows lie, and where their scales are.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <lowrank/kernels/target/target.hpp>

LOWRANK_IEEE_BEGIN
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

constexpr bool is_dense(Layout layout) { return layout == Layout::fp32 || layout == Layout::bf16 || layout == Layout::half; }
constexpr Index element_bytes(Layout dense) { return dense == Layout::fp32 ? 4 : 2; }

inline Layout layout_of(const WeightView& weight) {
  if (weight.kind() == WeightView::Kind::fp32) return Layout::fp32;
  if (weight.kind() == WeightView::Kind::bf16) return Layout::bf16;
  if (weight.kind() == WeightView::Kind::half) return Layout::half;
  const BlockSource& s = weight.blocks();
  if (s.order == CodeOrder::nibble_pairs) return Layout::pairs;
  if (s.order == CodeOrder::bytes) return Layout::bytes;
  return s.run == 16 ? Layout::halves : Layout::long_halves;
}

/// Where the scale and offset of a chunk come from.
enum class Scaling {
  floats,         ///< float32, one a group: of the weight, or of double quantization, read ahead; no offset
  floats_offset,  ///< anything else: scales and offsets read ahead, 128 groups at a time
  half,           ///< half precision inside the block of a chunk; no offset
  half_offset     ///< the same with the offset behind the scale
};

inline Scaling scaling_of(const BlockSource& s) {
  if (s.order == CodeOrder::nibble_pairs) return Scaling::floats;
  const bool has_short_runs = s.order == CodeOrder::bytes || s.run == 16;
  if (s.read_scales != HalfScales::read || s.group != 32 || s.block != 32 || !has_short_runs) return Scaling::floats_offset;
  if (s.offset_at < 0) return Scaling::half;
  return s.offset_at == s.scale_at + 2 ? Scaling::half_offset : Scaling::floats_offset;
}

constexpr bool has_offset(Scaling scaling) { return scaling == Scaling::half_offset || scaling == Scaling::floats_offset; }
constexpr bool has_floats(Scaling scaling) { return scaling == Scaling::floats || scaling == Scaling::floats_offset; }

/// Whether rows of blocks can be read chunk by chunk as they lie. Other blocks, which no known format has, go the packed way:
/// nibble pairs with offsets, ggml's nibbles whose numbers are no bfloat16, bytes in other blocks than Q8_0's.
inline bool can_stream(const BlockSource& s) {
  const auto is_power = [](Index n) { return std::has_single_bit(static_cast<std::size_t>(n)); };
  if (s.group < 32 || !is_power(s.group)) return false;
  if (s.order == CodeOrder::nibble_pairs) return runs_across_rows(s);
  if (!s.rows_hold_whole_groups() || s.pitch % 32 != 0) return false;
  if (s.order == CodeOrder::bytes) return scaling_of(s) == Scaling::half;
  if (!is_power(s.block)) return false;
  const auto is_short = [](float number) { return (bit_cast<std::uint32_t>(number) & 0xffffu) == 0; };
  return (s.run == 16 || s.run == 32) && std::all_of(s.table.begin(), s.table.end(), is_short);
}

/// How the blocks of a product lie: the same for all its rows.
struct BlockRows {
  const BlockSource& source;
  bool has_array;   ///< of scales, where they need not be read ahead
  Index row_bytes;  ///< from one row of blocks to the next
  Index block_bytes;
  Index codes_at;                         ///< where a row's codes begin
  Index scale_from_codes;                 ///< from a block's codes to its scale
  int group_shift, block_shift;           ///< group and block are powers of two
  alignas(16) std::int32_t pair_mask[4];  ///< of a scale and an offset side by side: bits set for those that a block has

  explicit BlockRows(const FewTokens& p)
      : source(p.weight->blocks()),
        has_array(source.read_scales == ArrayScales::read),
        row_bytes(source.row_bytes()),
        block_bytes(source.block_bytes),
        codes_at(source.order == CodeOrder::nibble_pairs ? 0 : source.codes_at),
        scale_from_codes(source.scale_at - codes_at),
        group_shift(std::countr_zero(static_cast<std::size_t>(source.group))),
        block_shift(std::countr_zero(static_cast<std::size_t>(source.block))),
        pair_mask{-1, source.offset_at < 0 ? 0 : -1, 0, 0} {}
};

/// Rows that go side by side. With one phase they follow each other. Else each side goes through a stretch of its own, which keeps all in
/// one phase: then memory is read in as many streams as there are sides.
template <int Rows>
struct SideBySide {
  const FewTokens& product;
  Index stretch;  ///< from one side to the next

  [[gnu::always_inline]] explicit SideBySide(const FewTokens& p)
      : product(p), stretch(p.phases == 1 ? 1 : (ceil_div(p.rows, Index{Rows}) + p.phases - 1) & -p.phases) {}
  Index groups() const { return product.phases == 1 ? ceil_div(product.rows, Index{Rows}) : stretch; }
  /// The first of a group's rows.
  [[gnu::always_inline]] Index first(Index group) const { return product.phases == 1 ? group * Rows : group; }
  /// What a group's rows are multiplied with.
  const FewTokens& tokens_of(Index group) const { return product.phases == 1 ? product : product.phase[group & (product.phases - 1)]; }
};

/// Rows of blocks side by side: where their chunks lie, and the scales that were read ahead. Rows past the last repeat it.
template <Layout L, Scaling M, int Rows>
struct RowGroup {
  static constexpr bool has_plain_blocks = L == Layout::pairs || !has_floats(M);  ///< a chunk a block
  static constexpr Index window_groups = 128;
  struct Window {
    float scale[window_groups], offset[window_groups];
  };
  struct NoWindow {};

  const BlockRows& all;
  const std::byte* codes[Rows];   ///< where a row's codes begin
  const std::byte* scales[Rows];  ///< where the scale of group 0 is, or would be if the window reached back to it
  const std::byte* ahead;         ///< where prefetching begins
  Index group[Rows];              ///< the numbers of the groups that rows begin in
  Index before[Rows];             ///< chunks of it that lie before the row
  bool has_streams;               ///< each row is followed by the next group's
  std::conditional_t<has_floats(M), Window, NoWindow> window_of[Rows];

  [[gnu::always_inline]] RowGroup(const BlockRows& rows, const FewTokens& p, Index number) : all(rows), has_streams(p.phases > 1) {
    const SideBySide<Rows> sides(p);
    const Index begin = sides.first(number);
    LOWRANK_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const Index at = begin + r * sides.stretch, row = p.row + (at < p.rows ? at : p.rows - 1), first = row * all.source.pitch;
      codes[r] = L == Layout::pairs ? all.source.data + first / 32 * 16 : all.source.data + row * all.row_bytes + all.codes_at;
      group[r] = first >> all.group_shift;
      before[r] = (first >> 5) - (group[r] << all.group_shift >> 5);
      if constexpr (M == Scaling::floats) scales[r] = all.source.scales + group[r] * 4;
    }
    ahead = codes[0] + (all.row_bytes >= 4096 / Rows ? Rows * all.row_bytes : 4096);
  }

  /// Asks for the rows that come 4 KiB or more later, a share with the chunk that lies at `at`: rows are short, and the processor's own
  /// prefetching ends with every page.
  [[gnu::always_inline]] void prefetch(Index at) const {
    if (L == Layout::pairs && has_streams) return __builtin_prefetch(codes[static_cast<std::size_t>(at) / 16 % Rows] + at + 2048);
    LOWRANK_UNROLL
    for (Index line = 0; line < (Rows * 20 + 63) / 64; ++line) __builtin_prefetch(ahead + Rows * at + 64 * line);
  }

  bool reads_ahead() const { return M == Scaling::floats_offset || (M == Scaling::floats && !all.has_array); }
  /// Chunks whose scales are at hand after read_ahead, which begins with the group of a chunk: rows may begin inside one.
  Index window() const { return reads_ahead() ? (window_groups - (L == Layout::pairs)) << all.group_shift >> 5 : Index{1} << 40; }
  void read_ahead(Index chunk, Index end) {
    if constexpr (has_floats(M)) {
      if (!reads_ahead()) return;
      for (int r = 0; r < Rows; ++r) {
        const Index first = group_at(r, chunk), left = group_at(r, end - 1) - first + 1;
        const Index count = left < window_groups ? left : window_groups;
        all.source.read_scales(all.source, group[r] + first, count, window_of[r].scale, window_of[r].offset);
        scales[r] = reinterpret_cast<const std::byte*>(window_of[r].scale) - first * 4;
      }
    }
  }

  /// Bytes from the beginning of a row's codes to those of chunk c: the same in every row.
  [[gnu::always_inline]] Index place_of(Index c) const {
    if constexpr (L == Layout::pairs) return c * 16;
    if constexpr (has_plain_blocks) return c * all.block_bytes;
    const int shift = all.block_shift - 5;
    const Index position = c & ((Index{1} << shift) - 1);
    return (c >> shift) * all.block_bytes + (L == Layout::long_halves ? position / 2 * 32 : position * 16);
  }
  /// Groups from the row's first to that of chunk c.
  [[gnu::always_inline]] Index group_at(int r, Index c) const { return (L == Layout::pairs ? c + before[r] : c) * 32 >> all.group_shift; }
  /// The scale of chunk c; its offset lies window_groups floats behind it.
  [[gnu::always_inline]] const std::byte* scale_of(int r, Index c) const { return scales[r] + group_at(r, c) * 4; }
};

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
LOWRANK_IEEE_END
