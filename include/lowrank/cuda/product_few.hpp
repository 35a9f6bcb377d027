#pragma once

#include <lowrank/cuda/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Y = W X + adapter · H for at most `Tokens` tokens: bound by the memory, for each weight is read once.
///
/// A block takes 16 rows; its warps share the depth, 128 columns at a time, and the adapter's columns come after W's. A lane loads one
/// chunk of 32 neighbours of two rows, 16 bytes of codes each, the next ones under way while it multiplies:
///
///   codes ──table of pairs──► bfloat16 level ──mma──► Σ level · x of one chunk ──· scale + offset · Σ x──► sums
///
/// The scale of a chunk may differ from its neighbours', so the four chunks that an mma meets must not be added. They are kept apart by x:
/// column 4 t + j of B is token t where the chunk is j, and zero elsewhere. Levels (−8 … 7, or those of NF4) are rounded to bfloat16,
/// scales are not. The warps' sums meet in a fixed order. Grid: rows / 16.
template <int Bits, int Tokens>
struct ProductFew {
  static constexpr int most_threads = 512, least_blocks = 2, strip = 16, chunks_at_once = 4, pairs = (Tokens + 1) / 2, words = Bits / 4;
  static constexpr bool starts_early = true, is_frozen = Bits != 16;  // codes are read before x is there; bfloat16 may be A, just rounded
  Product product;

  struct Shared {
    std::uint32_t levels[Bits == 4 ? 256 : 1][warp_size];  ///< two levels for each byte of codes, in a bank for each lane
    float sums[most_threads / warp_size][strip][2 * pairs];
  };

  LaunchShape shape() const {
    const Index groups = ceil_div(product.base.chunks, chunks_at_once), warps = groups < 4 ? 4 : groups < 16 ? groups : 16;
    return {.x = static_cast<unsigned>(ceil_div(product.rows, strip)),
            .threads = static_cast<int>(warps) * warp_size,
            .shared_bytes = sizeof(Shared)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    Sums sums = {};
    const PackedView& w = product.base;
    Piece<Bits> first;
    t.allow_next();
    if constexpr (is_frozen) fetch(t, w, t.warp(), first);
    if constexpr (Bits == 4) fill_levels(t, s);
    t.sync();
    t.wait_for_previous();
    if constexpr (!is_frozen) fetch(t, w, t.warp(), first);
    add_matrix<Bits>(t, s, w, product.x, first, sums);
    if (product.adapter.depth > 0) {
      const PackedView columns = view_of(product.adapter);
      Piece<16> of_adapter;
      fetch(t, columns, t.warp(), of_adapter);
      add_matrix<16>(t, s, columns, product.h, of_adapter, sums);
    }
    store(t, s, sums);
  }

 private:
  /// Of rows g and g + 8, tokens c / 2, c / 2 + 2 …, where the lane is 4 g + c.
  using Sums = float[2][pairs];

  /// What a lane holds of 16 rows × 128 columns: its chunk of two rows, and the scales of the two chunks whose sums mma gives it.
  template <int B>
  struct Piece {
    Word4 codes[2][B / 4];
    ChunkScale by[2][2];
  };

  LOWRANK_DEVICE static PackedView view_of(const AdapterView& a) {
    PackedView v;
    v.codes = reinterpret_cast<const Word4*>(a.data);
    v.rows = a.rows, v.cols = a.depth;
    v.chunks = static_cast<int>(a.stride / chunk_size);
    v.bits = 16;
    return v;
  }

  template <class Simt>
  LOWRANK_DEVICE void fill_levels(Simt& t, Shared& s) const {
    for (int code = t.warp(); code < 256; code += t.threads() / warp_size)
      s.levels[code][t.lane()] = bfloat16_pair(product.base.table[code & 15], product.base.table[code >> 4]);
  }

  template <int B, class Simt>
  LOWRANK_DEVICE void fetch(Simt& t, const PackedView& w, int group, Piece<B>& piece) const {
    LOWRANK_CUDA_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = t.block_x() * strip + t.lane() / 4 + 8 * r, first = group * chunks_at_once, chunk = first + t.lane() % 4;
      const Index at = static_cast<Index>(row) * w.chunks;
      const bool is_inside = row < w.rows && chunk < w.chunks;
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < B / 4; ++i) piece.codes[r][i] = is_inside ? t.stream(w.codes + (at + chunk) * (B / 4) + i) : Word4{};
      LOWRANK_CUDA_UNROLL
      for (int j = 0; j < 2; ++j) {
        const int of = first + t.lane() % 2 * 2 + j;
        piece.by[r][j] = row < w.rows && of < w.chunks ? scale_of(w, at + of) : ChunkScale{};
      }
    }
  }

  template <int B, class Simt>
  LOWRANK_DEVICE void add_matrix(Simt& t, const Shared& s, const PackedView& w, const Operand& x, const Piece<B>& first, Sums& sums) const {
    const int groups = (w.chunks + chunks_at_once - 1) / chunks_at_once, warps = t.threads() / warp_size;
    Piece<B> next = first;
    for (int group = t.warp(); group < groups; group += warps) {
      const Piece<B> piece = next;
      if (group + warps < groups) fetch(t, w, group + warps, next);
      float dots[pairs][4] = {}, totals[pairs][4] = {};
      const bool has_offsets = B == 4 && (w.offsets || w.half_offsets);
      multiply(t, s, piece, x, group * chunks_at_once + t.lane() % 4, has_offsets, dots, totals);
      LOWRANK_CUDA_UNROLL
      for (int p = 0; p < pairs; ++p) {
        LOWRANK_CUDA_UNROLL
        for (int i = 0; i < 4; ++i) {
          const ChunkScale by = piece.by[i / 2][i % 2];
          sums[i / 2][p] += by.scale * dots[p][i] + by.offset * totals[p][i];
        }
      }
    }
  }

  /// dots: Σ level · x of each chunk; totals: Σ x.
  template <int B, class Simt>
  LOWRANK_DEVICE void multiply(Simt& t, const Shared& s, const Piece<B>& piece, const Operand& x, int chunk, bool has_offsets,
                               float (&dots)[pairs][4], float (&totals)[pairs][4]) const {
    constexpr std::uint32_t ones[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    LOWRANK_CUDA_UNROLL
    for (int eight = 0; eight < 4; ++eight) {
      Word4 input[pairs];
      LOWRANK_CUDA_UNROLL
      for (int p = 0; p < pairs; ++p) input[p] = input_of(t, x, 2 * p + t.lane() / 16, chunk * chunk_size + 8 * eight);
      LOWRANK_CUDA_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int pair = 4 * eight + 2 * half;
        const std::uint32_t a[4] = {pair_of<B>(t, s, piece.codes[0], pair), pair_of<B>(t, s, piece.codes[1], pair),
                                    pair_of<B>(t, s, piece.codes[0], pair + 1), pair_of<B>(t, s, piece.codes[1], pair + 1)};
        LOWRANK_CUDA_UNROLL
        for (int p = 0; p < pairs; ++p) {
          const std::uint32_t b[2] = {input[p].word[2 * half], input[p].word[2 * half + 1]};
          t.mma(dots[p], a, b);
          if (has_offsets) t.mma(totals[p], ones, b);
        }
      }
    }
  }

  /// Eight numbers of a token for the lane whose column of B is that token and its own chunk.
  template <class Simt>
  LOWRANK_DEVICE Word4 input_of(Simt& t, const Operand& x, int token, int k) const {
    const bool is_mine = t.lane() / 4 % 4 == t.lane() % 4 && token < product.tokens && k < x.depth;
    return is_mine ? *reinterpret_cast<const Word4*>(x.data + token * x.stride + k) : Word4{};
  }

  /// Elements 2 i and 2 i + 1 of a chunk as bfloat16, without their scale.
  template <int B, class Simt>
  LOWRANK_DEVICE static std::uint32_t pair_of(Simt& t, const Shared& s, const Word4* chunk, int i) {
    if constexpr (B == 16) return chunk[i / 4].word[i % 4];
    if constexpr (B == 4) return s.levels[(chunk->word[i / 4] >> (8 * (i % 4))) & 0xffu][t.lane()];
    const std::uint32_t both = chunk[i / 8].word[i % 8 / 2] >> (16 * (i % 2));
    return bfloat16_pair(static_cast<float>(static_cast<std::int8_t>(both & 0xffu)),
                         static_cast<float>(static_cast<std::int8_t>((both >> 8) & 0xffu)));
  }

  template <class Simt>
  LOWRANK_DEVICE void store(Simt& t, Shared& s, const Sums& sums) const {
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < 2 * pairs; ++i) {
      const float sum = sums[i % 2][i / 2] + t.shuffle_xor(sums[i % 2][i / 2], 1);  // the token's other two chunks
      if (t.lane() % 2 == 0) s.sums[t.warp()][t.lane() / 4 + i % 2 * 8][i / 2 * 2 + t.lane() % 4 / 2] = sum;
    }
    t.sync();
    for (int i = t.thread(); i < strip * 2 * pairs; i += t.threads()) {
      const int row = i % strip, token = i / strip;
      float sum = 0;
      for (int warp = 0; warp < t.threads() / warp_size; ++warp) sum += s.sums[warp][row][token];
      if (token < product.tokens) store_output(product, 0, t.block_x() * strip + row, token, sum);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
