#pragma once

/// Fills panels: any piece of a source, or activations, into the words that a target's micro-kernel reads.

#include <algorithm>
#include <span>

#include <lowrank/kernels/driver/decode.hpp>
#include <lowrank/kernels/driver/options.hpp>
#include <lowrank/kernels/driver/pieces.hpp>
#include <lowrank/kernels/driver/scratch.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels {

/// Kernels of a target for a compute type; 8-bit products are for few tokens, others round as bf16 does.
inline const PanelKernels& panel_kernels(const Target& target, Compute compute) {
  return compute == Compute::fp32 ? target.fp32 : target.bf16;
}

/// Largest panel of any target, in rows and tokens, and the depth decoded at a time.
inline constexpr Index max_panel_rows = 64, max_panel_columns = 16, tile_depth = 64;

/// Fills the panels of one product's left factor.
struct LeftPacker {
  const Target& target;
  const PanelKernels& kernels;
  const Pieces& pieces;

  /// The piece of blocks that a kernel decodes as it multiplies rows [row, row + rows) from depth k on, or null.
  const Piece* blocks_at(Index row, Index rows, Index k) const {
    const Piece* const p = whole_rows_at(row, rows, k);
    if (p == nullptr || p->transposed || p->weight.kind() != WeightView::Kind::blocks) return nullptr;
    const bool has_chunk = (k - p->depth) % 32 == 0 && p->depth + p->length >= k + 32;
    return has_chunk && p->weight.blocks().rows_hold_whole_groups() ? p : nullptr;
  }

  /// Rows [row, row + rows), depth [depth, depth + length) of the product; depth is a multiple of the grain, rows at most a panel's. The
  /// panel is zero from there to a whole grain.
  void pack(Index row, Index rows, Index depth, Index length, Word* panel) const {
    const Index step = ceil_div(rows, kernels.lanes) * kernels.lanes, limit = depth + length;
    for (Index k = depth; k < limit;) {
      const Piece* piece = whole_rows_at(row, rows, k);
      Index count = 0;
      if (piece != nullptr) {
        const Index end = std::min(piece->depth + piece->length, limit);
        count = ends_alone(row, rows, end) ? end - k : (end - k) / kernels.grain * kernels.grain;
      }
      Word* out = panel + (k - depth) / kernels.unit * step;
      const bool is_whole = count > 0;
      if (!is_whole) count = std::min(stitched_length(row, rows, k), limit - k);
      const Index end = round_up(count, kernels.grain);
      std::fill(out + ceil_div(count, kernels.unit) * step, out + end / kernels.unit * step, 0u);  // before words that share the grain
      if (is_whole)
        pack_piece(*piece, row - piece->row, rows, k - piece->depth, count, out, step);
      else
        stitch(row, rows, k, count, out, step);
      k += end;
    }
  }

 private:
  const Piece* whole_rows_at(Index row, Index rows, Index k) const {
    for (const Piece& p : pieces)
      if (p.row <= row && row + rows <= p.row + p.rows && p.depth <= k && k < p.depth + p.length) return &p;
    return nullptr;
  }

  /// Whether no piece begins between `end` and the next whole grain.
  bool ends_alone(Index row, Index rows, Index end) const {
    for (const Piece& p : pieces)
      if (p.row < row + rows && row < p.row + p.rows && p.depth >= end && p.depth < round_up(end, kernels.grain)) return false;
    return true;
  }

  /// Depth to stitch at k: up to the end of the nearest piece, a whole number of grains, at most a tile.
  Index stitched_length(Index row, Index rows, Index k) const {
    Index end = k + tile_depth;
    for (const Piece& p : pieces)
      if (p.row < row + rows && row < p.row + p.rows && p.depth <= k && k < p.depth + p.length) end = std::min(end, p.depth + p.length);
    return round_up(std::max<Index>(end - k, 1), kernels.grain);
  }

  /// Rows or grains that several pieces share: put together as floats, then packed.
  void stitch(Index row, Index rows, Index k, Index length, Word* out, Index step) const {
    float tile[max_panel_rows * tile_depth];
    std::fill_n(tile, rows * tile_depth, 0.0f);
    for (const Piece& p : pieces) {
      const Index top = std::max(row, p.row), bottom = std::min(row + rows, p.row + p.rows);
      const Index left = std::max(k, p.depth), right = std::min(k + length, p.depth + p.length);
      if (top >= bottom || left >= right) continue;
      float* corner = tile + (top - row) * tile_depth + left - k;
      const Index i = top - p.row, j = left - p.depth, m = bottom - top, n = right - left;
      if (!p.transposed) {
        decode(target, p.weight, i, m, j, n, corner, tile_depth);
      } else {
        float tile_transposed[max_panel_rows * tile_depth];
        decode(target, p.weight, j, n, i, m, tile_transposed, max_panel_rows);
        for (Index r = 0; r < m; ++r)
          for (Index c = 0; c < n; ++c) corner[r * tile_depth + c] = tile_transposed[c * max_panel_rows + r];
      }
      for (Index r = 0; r < m; ++r)
        for (Index c = 0; c < n; ++c) corner[r * tile_depth + c] *= p.scale;
    }
    for_lanes(rows,
              [&](Index v, Index count) { kernels.pack_rows(tile + v * tile_depth, tile_depth, count, length, 1.0f, out + v, step); });
  }

  template <class Body>
  void for_lanes(Index rows, const Body& body) const {
    for (Index v = 0; v < rows; v += kernels.lanes) body(v, std::min(kernels.lanes, rows - v));
  }

  bool packs_across_rows(const Piece& p) const { return kernels.packs_any_rows && runs_across_rows(p.weight.blocks()); }

  /// Rows [i, i + rows), depth [k, k + length) of one piece.
  void pack_piece(const Piece& p, Index i, Index rows, Index k, Index length, Word* out, Index step) const {
    if (p.weight.kind() == WeightView::Kind::fp32) return pack_floats(p, i, rows, k, length, out, step);
    if (p.transposed) return pack_transposed(p, i, rows, k, length, out, step);
    Index done = 0;
    if (p.weight.kind() == WeightView::Kind::blocks && kernels.pack_blocks != nullptr && k % 32 == 0 &&
        (p.weight.blocks().rows_hold_whole_groups() || packs_across_rows(p))) {
      done = length / 32 * 32;
      for_lanes(rows, [&](Index v, Index lanes) { kernels.pack_blocks(p.weight.blocks(), i + v, lanes, k, done, p.scale, out + v, step); });
    }
    alignas(64) float tile[max_panel_columns * tile_depth * 2];
    for (; done < length; done += tile_depth) {
      const Index count = std::min(tile_depth, length - done);
      for_lanes(rows, [&](Index v, Index lanes) {
        decode(target, p.weight, i + v, lanes, k + done, count, tile, tile_depth);
        kernels.pack_rows(tile, tile_depth, lanes, count, p.scale, out + done / kernels.unit * step + v, step);
      });
    }
  }

  void pack_floats(const Piece& p, Index i, Index rows, Index k, Index length, Word* out, Index step) const {
    const auto* data = static_cast<const float*>(p.weight.data());
    const Index stride = p.weight.stride();
    for_lanes(rows, [&](Index v, Index lanes) {
      if (p.transposed)
        kernels.pack_columns(data + k * stride + i + v, stride, lanes, length, p.scale, out + v, step);
      else
        kernels.pack_rows(data + (i + v) * stride + k, stride, lanes, length, p.scale, out + v, step);
    });
  }

  /// A transposed piece: its stored rows run along the lanes, so a decoded tile needs no transposing.
  void pack_transposed(const Piece& p, Index i, Index rows, Index k, Index length, Word* out, Index step) const {
    Index packed = 0;
    if (p.weight.kind() == WeightView::Kind::blocks && kernels.pack_blocks_transposed != nullptr) {
      const BlockSource& s = p.weight.blocks();
      if (s.rows_hold_whole_groups() && i % kernels.lanes == 0 && s.group % kernels.lanes == 0)
        packed = rows;
      else if (packs_across_rows(p))
        packed = rows / kernels.lanes * kernels.lanes;
      for_lanes(packed, [&](Index v, Index lanes) { kernels.pack_blocks_transposed(s, k, lanes, i + v, length, p.scale, out + v, step); });
      if (packed == rows) return;
    }
    alignas(64) float tile[max_panel_rows * tile_depth];
    for (Index done = 0; done < length; done += tile_depth) {
      const Index count = std::min(tile_depth, length - done);
      decode(target, p.weight, k + done, count, i + packed, rows - packed, tile, max_panel_rows);
      for_lanes(rows - packed, [&](Index v, Index lanes) {
        kernels.pack_columns(tile + v, max_panel_rows, lanes, count, p.scale, out + done / kernels.unit * step + packed + v, step);
      });
    }
  }
};

/// One panel of tokens [token, token + count) over the whole depth; parts are stacked along the depth and begin
/// at whole grains.
inline void pack_tokens(const PanelKernels& kernels, std::span<const Columns> parts, Index token, Index count, Word* panel) {
  Index depth = 0;
  for (const Columns& part : parts) {
    Word* out = panel + depth / kernels.unit * kernels.columns;
    if (part.transposed)
      kernels.pack_token_columns(part.data + token, part.stride, count, part.depth, 1.0f, out, kernels.columns);
    else
      kernels.pack_token_rows(part.data + token * part.stride, part.stride, count, part.depth, 1.0f, out, kernels.columns);
    depth += part.depth;
  }
}

namespace detail {

struct StackedTokens {};

/// The parts of an activation copied into one array: a grain of the depth cannot be shared by two parts.
inline Columns stack(std::span<const Columns> x, Index depth, Index tokens) {
  float* stacked = Scratch<StackedTokens>::get<float>(depth * tokens);
  Index begin = 0;
  for (const Columns& part : x) {
    for (Index t = 0; t < tokens; ++t)
      for (Index k = 0; k < part.depth; ++k)
        stacked[t * depth + begin + k] = part.transposed ? part.data[k * part.stride + t] : part.data[t * part.stride + k];
    begin += part.depth;
  }
  return {stacked, depth, depth};
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI::kernels
LOWRANK_IEEE_END
