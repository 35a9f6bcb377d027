#pragma once

/// The packed driver: Y = source · X for many tokens. It owns blocking and threads; a target owns the arithmetic.
///
/// Loops, outermost first: slices of tokens, whose activations are packed once; blocks of rows, one task each for the threads; blocks of
/// depth, for which the rows' panels are packed (and quantized codes decoded) once and stay in the second-level cache; panels of
/// tokens, whose words stay in the first-level cache; panels of rows. Goto and van de Geijn 2008, "Anatomy of high-performance matrix
/// multiplication".
///
/// Every element is one chain of fused multiply-adds in the order of depth (on tiles, of sums over 32 of it), whatever the blocking: the
/// same bits for any number of threads, any cache size and any neighbours.

#include <algorithm>
#include <span>

#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/kernels/driver/packing.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {

struct PackedTokens {};
struct PackedRows {};
struct PartialSums {};

/// How one product is cut.
struct Blocking {
  Index depth;        ///< of a block; a multiple of every unit
  Index rows;         ///< of a task; a multiple of the panel's rows
  Index tokens;       ///< of a task; a multiple of the panel's columns
  Index token_slice;  ///< packed at once
  bool parallel;

  /// `slice` tokens are packed at once; 0: as many as fit the third-level cache.
  Blocking(const PanelKernels& kernels, Index row_count, Index depth_count, Index token_count, Index slice = 0) {
    const Index threads = thread_count();
    const Index work = row_count * depth_count * (token_count + 2);
    parallel = threads > 1 && work > (Index{1} << 18);
    const Index word = static_cast<Index>(sizeof(Word));
    // A panel of tokens fills half of L1; the panels of a task's rows fill 3/8 of L2.
    depth = std::max<Index>(cache_sizes().l1 / 2 / (kernels.columns * word), 64) * kernels.unit;
    depth = round_up(std::max<Index>(1, ceil_div(depth_count, std::max<Index>(1, ceil_div(depth_count, depth)))), 64);
    const Index fitting_tokens = std::clamp<Index>((Index{16} << 20) / (depth_count * word / kernels.unit + 1), 64, 1024);
    token_slice = round_up(slice > 0 ? slice : fitting_tokens, kernels.columns);
    tokens = std::min(token_slice, round_up(token_count, kernels.columns));
    Index fitting = std::min<Index>(cache_sizes().l2 * 3 / 8 / (depth / kernels.unit * word) / kernels.rows(), 8);
    Index wanted = parallel ? 4 * threads : 1;
    if (kernels.outruns_caches) {  // a task's sums fill half of L2; its rows are many, since tokens are read once for all of them
      tokens = std::min<Index>(tokens, 1024);
      fitting = std::min<Index>(cache_sizes().l2 / 2 / (tokens * word) / kernels.rows(), 16);
      wanted = parallel ? 2 * threads : 1;
    }
    const Index panels = ceil_div(row_count, kernels.rows());
    rows = std::max<Index>(std::min(fitting, panels / wanted), 1) * kernels.rows();
    const Index tasks = ceil_div(row_count, rows);
    if (parallel && tasks < 2 * threads) {  // few rows: cut the tokens too, down to 32 a task
      const Index parts = ceil_div(2 * threads, tasks);
      tokens = std::min(tokens, std::max<Index>(round_up(ceil_div(tokens, parts), kernels.columns), 32));
    }
  }

  template <class Body>
  void for_each(Index count, const Body& body) const {
    if (parallel) return parallel_for(count, body);
    for (Index i = 0; i < count; ++i) body(i);
  }
};

/// The loops of one product with packed tokens, over depth [depth_begin, depth_end), with which the packed panels of `token_words` words
/// begin.
struct Product {
  const Target& target;
  const PanelKernels& kernels;
  const Pieces& pieces;
  const Word* packed_tokens;
  Index token_words;
  float* y;
  Index ldy;
  const Options& options;
  Blocking blocking;
  Index depth_begin, depth_end;

  /// All rows times `count` tokens, which y begins with.
  void run(Index count) const {
    const Index row_tasks = ceil_div(pieces.rows(), blocking.rows), token_tasks = ceil_div(count, blocking.tokens);
    blocking.for_each(row_tasks * token_tasks, [&](Index task) {
      const Index row = task / token_tasks * blocking.rows, token = task % token_tasks * blocking.tokens;
      block(row, std::min(blocking.rows, pieces.rows() - row), token, std::min(blocking.tokens, count - token));
    });
  }

  /// Rows [row, row + rows) times tokens [token, token + count).
  void block(Index row, Index rows, Index token, Index count) const {
    if (kernels.multiply_blocks != nullptr && count <= kernels.columns) return panel_of_tokens(row, rows, token, count);
    const LeftPacker packer{target, kernels, pieces};
    const Index height = kernels.rows(), panels = ceil_div(rows, height), panel_words = blocking.depth / kernels.unit * height;
    Word* packed = Scratch<PackedRows>::get<Word>(panels * panel_words);
    float* sums = nullptr;
    if (kernels.outruns_caches && depth_end - depth_begin > blocking.depth)
      sums = Scratch<PartialSums>::get<float>(panels * ceil_div(count, kernels.columns) * height * kernels.columns);
    Index depth = depth_begin;
    do {
      const Index length = std::min(blocking.depth, depth_end - depth);
      {
        const PhaseScope scope(Phase::decoding);
        for (Index p = 0; p < panels; ++p)
          packer.pack(row + p * height, std::min(height, rows - p * height), depth, length, packed + p * panel_words);
      }
      const PhaseScope scope(Phase::product);
      multiply(row, rows, token, count, depth, length, packed, panel_words, sums);
      depth += length;
    } while (depth < depth_end);
  }

  /// The same for at most a panel of tokens: rows of blocks are multiplied as they are decoded, the rest from panels.
  void panel_of_tokens(Index row, Index rows, Index token, Index count) const {
    const PhaseScope scope(Phase::product);
    const Index height = kernels.rows();
    Word* const packed = Scratch<PackedRows>::get<Word>(blocking.depth / kernels.unit * height);
    for (Index r = row; r < row + rows; r += height) {
      const Index some = std::min(height, row + rows - r);
      float* const result = y + token * ldy + r;
      bool accumulate = depth_begin > 0 || options.accumulate;
      Index depth = depth_begin;
      do {
        depth += add_part(r, some, depth, token, count, accumulate, result, packed);
        accumulate = true;
      } while (depth < depth_end);
      if (depth == pieces.depth()) finish(options, r, some, count, result, ldy);
    }
  }

 private:
  /// As much of the depth from `depth` on as goes one way; gives its length.
  Index add_part(Index row, Index rows, Index depth, Index token, Index count, bool accumulate, float* result, Word* packed) const {
    const LeftPacker packer{target, kernels, pieces};
    const Word* const b = packed_tokens + token / kernels.columns * token_words + (depth - depth_begin) / kernels.unit * kernels.columns;
    const float* const from = accumulate ? result : nullptr;
    if (const Piece* piece = packer.blocks_at(row, rows, depth)) {
      const Index length = (std::min(piece->depth + piece->length, depth_end) - depth) / 32 * 32;
      if (length > 0) {
        kernels.multiply_blocks(piece->weight.blocks(), row - piece->row, rows, depth - piece->depth, length, piece->scale, count, b, from,
                                ldy, result, ldy);
        return length;
      }
    }
    const Index length = std::min(blocking.depth, depth_end - depth);
    packer.pack(row, rows, depth, length, packed);
    kernels.multiply(round_up(length, kernels.grain) / kernels.unit, ceil_div(rows, kernels.lanes), rows, count, packed, b, from, ldy,
                     result, ldy);
    return length;
  }

  /// One block of depth [depth, depth + length): panels of tokens times panels of rows, each of `panel_words` words.
  void multiply(Index row, Index rows, Index token, Index count, Index depth, Index length, const Word* packed, Index panel_words,
                float* sums) const {
    const Index height = kernels.rows(), words = round_up(length, kernels.grain) / kernels.unit;
    const bool is_first = depth == depth_begin, is_last = depth + length == depth_end;
    const bool accumulate = depth > 0 || options.accumulate, finishes = options.row_scale != nullptr || options.bias != nullptr;
    const Index waiting_stride = sums != nullptr ? height : ldy;
    const Index share = ceil_div(words * kernels.columns, ceil_div(rows, height));
    const Entered entered(kernels);
    for (Index t = token; t < token + count; t += kernels.columns) {
      const Word* b = packed_tokens + t / kernels.columns * token_words + (depth - depth_begin) / kernels.unit * kernels.columns;
      const Index columns = std::min(kernels.columns, token + count - t);
      for (Index r = 0; r < rows; r += height) {
        const Index width = std::min(height, rows - r);
        if (kernels.outruns_caches && t + columns < token + count) prefetch(b + token_words + r / height * share, share);
        float *const result = y + t * ldy + row + r, *const waiting = sums != nullptr ? sums : result;
        const float* const from = is_first ? (accumulate ? result : nullptr) : waiting;
        float* const to = is_last ? result : waiting;
        kernels.multiply(words, ceil_div(width, kernels.lanes), width, columns, packed + r / height * panel_words, b, from,
                         is_first ? ldy : waiting_stride, to, is_last ? ldy : waiting_stride);
        if (sums != nullptr) sums += height * kernels.columns;
        if (depth + length == pieces.depth() && finishes) finish(options, row + r, width, columns, to, ldy);
      }
    }
  }

  /// Brings words to the second-level cache: a part of the next panel of tokens, while this one is multiplied with a panel of rows.
  static void prefetch(const Word* words, Index count) {
    for (Index i = 0; i < count; i += 16) __builtin_prefetch(words + i, 0, 2);
  }

  /// While a thread multiplies.
  struct Entered {
    const PanelKernels& kernels;
    explicit Entered(const PanelKernels& k) : kernels(k) {
      if (kernels.enter != nullptr) kernels.enter();
    }
    ~Entered() {
      if (kernels.leave != nullptr) kernels.leave();
    }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;
  };
};

/// Packs tokens [begin, begin + count) of the stacked parts into panels of `token_words` words.
inline void pack_panels(const PanelKernels& kernels, std::span<const Columns> x, Index begin, Index count, Word* panels, Index token_words,
                        bool parallel) {
  const PhaseScope scope(Phase::packing);
  const Index panel_count = ceil_div(count, kernels.columns), share = std::max<Index>(1, 32 / kernels.columns);
  const auto pack = [&](Index piece) {
    for (Index p = piece * share; p < std::min(panel_count, (piece + 1) * share); ++p)
      pack_tokens(kernels, x, begin + p * kernels.columns, std::min(kernels.columns, count - p * kernels.columns),
                  panels + p * token_words);
  };
  const Index pieces = ceil_div(panel_count, share);
  if (parallel) return parallel_for(pieces, pack);
  for (Index i = 0; i < pieces; ++i) pack(i);
}
}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI::kernels
