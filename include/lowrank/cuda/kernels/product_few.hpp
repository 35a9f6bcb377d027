#pragma once

#include <cstddef>
#include <cstdint>

#include <lowrank/cuda/kernels/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Y = W X + update · H for at most `Tokens` tokens: bound by the memory, for each weight is read once.
///
/// A block takes strips of 16 rows; its warps share the depth, 128 columns at a time, and the update's columns come after W's. A lane
/// loads one chunk of 32 neighbours of two rows, 16 bytes of codes each, the next ones under way while it multiplies:
///
///   codes ──table of pairs──► bfloat16 levels ──mma──► Σ level · x of one chunk ──· scale + offset · Σ x──► sums
///
/// The scale of a chunk may differ from its neighbours', so the four chunks that an mma meets must not be added. They are kept apart by x:
/// column 2 j + t of B is token t where the chunk is j, and zero elsewhere, which gives each lane the sums of its own chunk. Levels
/// (−8 … 7, or those of NF4) are rounded to bfloat16, scales are not. The warps' sums meet in a fixed order. Grid: `blocks`, or a strip
/// each.
template <int Bits, int Tokens>
struct ProductFew {
  static constexpr int most_threads = Tokens <= 2 ? 512 : 256, least_blocks = 2, strip = 16, chunks_at_once = 4, pairs = (Tokens + 1) / 2,
                       words = Bits / 4;
  static constexpr int ahead =
      Bits == 4 && Tokens > 2 ? 2 : 1;  // pieces under way: more threads or more pieces, whichever was faster (H200)
  static constexpr bool starts_early = true;
  Product product;
  int blocks = 0;  ///< at most so many, 0: no limit

  /// Two levels for each byte of codes, in a bank for each lane, 256 bytes apart: byte and lane are the bytes of an address.
  struct Shared {
    std::uint32_t levels[Bits == 4 ? 256 : 1][2 * warp_size];
    float sums[most_threads / warp_size][strip][2 * pairs];
  };

  LaunchShape shape() const {
    const Index groups = ceil_div(product.base.chunks, chunks_at_once), most = most_threads / warp_size,
                warps = groups < 4      ? 4
                        : groups < most ? groups
                                        : most;
    return {.x = static_cast<unsigned>(grid()), .threads = static_cast<int>(warps) * warp_size, .shared_bytes = sizeof(Shared)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    t.allow_next();
    const ChunkedView& w = product.base;
    if (Bits == 16 || w.scaling == Scaling::none) return run<Scaling::none, false>(t);
    if (w.scaling == Scaling::doubled) return run<Scaling::doubled, false>(t);
    if (w.scaling == Scaling::halves) return w.half_offsets ? run<Scaling::halves, true>(t) : run<Scaling::halves, false>(t);
    w.offsets ? run<Scaling::floats, true>(t) : run<Scaling::floats, false>(t);
  }

 private:
  /// Of rows g and g + 8, tokens 2 p and 2 p + 1, over the chunks of lane 4 g + c, which are c, c + 4 …
  using Sums = float[pairs][4];

  /// A matrix as a lane reads it: where its two rows begin, and the tokens' numbers where its column of B has them, else null.
  template <int B>
  struct Lane {
    const Word4* row[2];
    int first[2];  ///< chunk of the matrix
    int chunks;
    const Word4* x[pairs];
  };
  struct Piece {
    Word4 codes[2][words];
    StoredScale by[2];
  };

  constexpr int strips() const { return (product.rows + strip - 1) / strip; }
  constexpr int grid() const { return blocks > 0 && blocks < strips() ? blocks : strips(); }

  template <int B, class Simt>
  LOWRANK_DEVICE Lane<B> lane_of(Simt& t, const Word4* codes, int rows, int chunks, const Operand& x, int at) const {
    Lane<B> lane;
    lane.chunks = chunks;
    for (int r = 0; r < 2; ++r) {
      const int row = at * strip + t.lane() / 4 + 8 * r;
      lane.first[r] = row < rows ? row * chunks : 0;  // what another row gives is not stored
      lane.row[r] = codes + static_cast<Index>(lane.first[r]) * (B / 4);
    }
    for (int p = 0; p < pairs; ++p) {
      const int token = 2 * p + t.lane() / 4 % 2;
      const bool is_mine = t.lane() / 8 == t.lane() % 4 && token < product.tokens;
      lane.x[p] = is_mine ? reinterpret_cast<const Word4*>(x.data + token * x.stride) : nullptr;
    }
    return lane;
  }

  template <Scaling By, bool Totals, class Simt>
  LOWRANK_DEVICE void run(Simt& t) const {
    Shared& s = shared_as<Shared>(t);
    const ChunkedView& w = product.base;
    const UpdateFactor& a = product.update;
    Piece pieces[ahead];
    if (Bits != 16 && w.chunks > 0)  // codes are read before x is there; bfloat16 may be A, just rounded
      begin<By>(t, lane_of<Bits>(t, w.codes, w.rows, w.chunks, product.x, t.block_x()), pieces);
    fill_levels(t, s);
    t.sync();
    t.wait_for_previous();
    for (int at = t.block_x(); at < strips(); at += grid()) {
      Sums sums = {};
      const auto lane = lane_of<Bits>(t, w.codes, w.rows, w.chunks, product.x, at);
      if constexpr (Bits == 16) {
        add_rows(t, lane, sums);
      } else if (w.chunks > 0) {
        if (at != t.block_x()) begin<By>(t, lane, pieces);
        add_codes<By, Totals>(t, s, lane, pieces, sums);
      }
      if (a.depth > 0)
        add_rows(t, lane_of<16>(t, reinterpret_cast<const Word4*>(a.data), a.rows, static_cast<int>(a.stride / chunk_size), product.h, at),
                 sums);
      store(t, s, at, sums);
    }
  }

  template <class Simt>
  LOWRANK_DEVICE void fill_levels(Simt& t, Shared& s) const {
    if constexpr (Bits == 4)
      for (int code = t.warp(); code < 256; code += t.threads() / warp_size)
        s.levels[code][t.lane()] = bfloat16_pair(product.base.table[code & 15], product.base.table[code >> 4]);
  }

  /// The lane's chunk of a group, or the last one: what lies past it meets an x of zero.
  template <Scaling By, class Simt>
  LOWRANK_DEVICE void fetch(Simt& t, const Lane<Bits>& lane, int group, Piece& piece) const {
    const int mine = group * chunks_at_once + t.lane() % 4, chunk = mine < lane.chunks ? mine : lane.chunks - 1;
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < 2 * words; ++i) piece.codes[i % 2][i / 2] = t.stream(lane.row[i % 2] + chunk * words + i / 2);
    for (int r = 0; r < 2; ++r) piece.by[r] = stored_scale<By>(product.base, lane.first[r] + chunk);
  }

  template <Scaling By, class Simt>
  LOWRANK_DEVICE void begin(Simt& t, const Lane<Bits>& lane, Piece (&pieces)[ahead]) const {
    LOWRANK_CUDA_UNROLL
    for (int n = 0; n < ahead; ++n) fetch<By>(t, lane, t.warp() + n * (t.threads() / warp_size), pieces[n]);
  }

  template <Scaling By, bool Totals, class Simt>
  LOWRANK_DEVICE void add_codes(Simt& t, const Shared& s, const Lane<Bits>& lane, Piece (&pieces)[ahead], Sums& sums) const {
    const int groups = (lane.chunks + chunks_at_once - 1) / chunks_at_once, warps = t.threads() / warp_size;
    for (int first = t.warp(); first < groups; first += ahead * warps) {
      LOWRANK_CUDA_UNROLL
      for (int n = 0; n < ahead; ++n) {
        const int group = first + n * warps;
        if (group >= groups) break;
        const Piece now = pieces[n];
        if (group + ahead * warps < groups) fetch<By>(t, lane, group + ahead * warps, pieces[n]);
        add_piece<By, Totals>(t, s, lane, now, group * chunks_at_once + t.lane() % 4, sums);
      }
    }
  }

  template <Scaling By, bool Totals, class Simt>
  LOWRANK_DEVICE void add_piece(Simt& t, const Shared& s, const Lane<Bits>& lane, const Piece& piece, int chunk, Sums& sums) const {
    Sums dots = {}, totals = {};
    LOWRANK_CUDA_UNROLL
    for (int eight = 0; eight < 4; ++eight) {
      std::uint32_t a[2][4];
      for (int r = 0; r < 2; ++r) decode_eight(t, s, piece.codes[r], eight, a[r]);
      multiply<Totals>(t, a, lane.x, lane.chunks, chunk, eight, dots, totals);
    }
    for (int r = 0; r < 2; ++r) {
      const ChunkScale by = decode_scale<By>(product.base, piece.by[r]);
      for (int p = 0; p < pairs; ++p)
        for (int i = 2 * r; i < 2 * r + 2; ++i) sums[p][i] += by.scale * dots[p][i] + (Totals ? by.offset * totals[p][i] : 0.0f);
    }
  }

  /// Rows of bfloat16, which have no scales: the base, or the update's columns.
  template <class Simt>
  LOWRANK_DEVICE void add_rows(Simt& t, const Lane<16>& lane, Sums& sums) const {
    const int groups = (lane.chunks + chunks_at_once - 1) / chunks_at_once;
    for (int group = t.warp(); group < groups; group += t.threads() / warp_size) {
      const int mine = group * chunks_at_once + t.lane() % 4, chunk = mine < lane.chunks ? mine : lane.chunks - 1;
      LOWRANK_CUDA_UNROLL
      for (int eight = 0; eight < 4; ++eight) {
        std::uint32_t a[2][4];
        for (int r = 0; r < 2; ++r) {
          const Word4 numbers = lane.row[r][chunk * 4 + eight];
          for (int i = 0; i < 4; ++i) a[r][i] = numbers.word[i];
        }
        multiply<false>(t, a, lane.x, lane.chunks, mine, eight, sums, sums);
      }
    }
  }

  /// dots += Σ of eight levels of two rows · x; totals += Σ x.
  template <bool Totals, class Simt>
  LOWRANK_DEVICE void multiply(Simt& t, const std::uint32_t (&a)[2][4], const Word4* const (&x)[pairs], int chunks, int chunk, int eight,
                               Sums& dots, Sums& totals) const {
    constexpr std::uint32_t ones[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    LOWRANK_CUDA_UNROLL
    for (int p = 0; p < pairs; ++p) {
      const Word4 input = x[p] && chunk < chunks ? x[p][chunk * 4 + eight] : Word4{};
      LOWRANK_CUDA_UNROLL
      for (int i = 0; i < 4; i += 2) {
        const std::uint32_t left[4] = {a[0][i], a[1][i], a[0][i + 1], a[1][i + 1]}, right[2] = {input.word[i], input.word[i + 1]};
        t.mma(dots[p], left, right);
        if constexpr (Totals) t.mma(totals[p], ones, right);
      }
    }
  }

  /// Elements 8 eight … 8 eight + 7 of a chunk as pairs of bfloat16, without their scale.
  template <class Simt>
  LOWRANK_DEVICE static void decode_eight(Simt& t, const Shared& s, const Word4 (&codes)[words], int eight, std::uint32_t (&pair)[4]) {
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (Bits == 4) {
        const auto lane = static_cast<std::uint32_t>(t.lane()) * 4u;
        const std::uint32_t at = t.permute_bytes(codes[0].word[eight], lane, 0x5504u | static_cast<std::uint32_t>(i) << 4);
        pair[i] = *reinterpret_cast<const std::uint32_t*>(reinterpret_cast<const std::byte*>(s.levels) + at);
      } else if constexpr (Bits == 8) {
        const std::uint32_t both = codes[eight / 2].word[eight % 2 * 2 + i / 2] >> (16 * (i % 2));
        pair[i] = bfloat16_pair(static_cast<float>(static_cast<std::int8_t>(both & 0xffu)),
                                static_cast<float>(static_cast<std::int8_t>((both >> 8) & 0xffu)));
      }
    }
  }

  template <class Simt>
  LOWRANK_DEVICE void store(Simt& t, Shared& s, int at, const Sums& sums) const {
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < 4 * pairs; ++i) {
      float sum = sums[i / 4][i % 4];  // of the lane's chunks; those of the row's other three follow
      sum += t.shuffle_xor(sum, 1);
      sum += t.shuffle_xor(sum, 2);
      if (t.lane() % 4 == 0) s.sums[t.warp()][t.lane() / 4 + i % 4 / 2 * 8][i / 4 * 2 + i % 2] = sum;
    }
    t.sync();
    for (int i = t.thread(); i < strip * 2 * pairs; i += t.threads()) {
      const int row = i % strip, token = i / strip;
      float sum = 0;
      for (int warp = 0; warp < t.threads() / warp_size; ++warp) sum += s.sums[warp][row][token];
      if (token < product.tokens) store_output(product, 0, at * strip + row, token, sum);
    }
    t.sync();  // the next strip's sums come to the same place
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
