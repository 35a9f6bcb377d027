#pragma once

/// Several adapters in one batch: rows sorted by adapter, cut into tiles of one adapter each. ProductMany takes the tiles three ways:
///
///   shrink   H = A_a X          no base, h = X, adapters[a] = A_a [rank_a, in], rows = the largest rank
///   expand   Y += s_a B_a H     no base, h = H, adapters[a] = s_a B_a [out, rank_a], accumulate; the base's product was made once before
///   fused    Y = W X + s_a B_a H  the base in the same pass, for segments longer than a tile
///
/// Ranks may differ; adapter −1 is none. Every tile sums in its own fixed order, so a row's result does not depend on the other adapters.

#include <span>
#include <vector>

#include <lowrank/cuda/product.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Tiles of at most `width` tokens for the adapter of each token, −1 for none; equal ones must be neighbours for tiles to be full.
/// Throws ValueError for an adapter outside [−1, count).
inline std::vector<TokenTile> token_tiles(std::span<const int> adapters, int count, int width) {
  check<ValueError>(width > 0, "token_tiles", "the width of a tile is ", width, "; it must be positive");
  std::vector<TokenTile> tiles;
  for (std::size_t t = 0; t < adapters.size(); ++t) {
    check<ValueError>(adapters[t] >= -1 && adapters[t] < count, "token_tiles", "token ", t, " names adapter ", adapters[t],
                      " but there are ", count, "; use -1 for none");
    if (tiles.empty() || tiles.back().adapter != adapters[t] || tiles.back().count == width)
      tiles.push_back({static_cast<int>(t), 0, adapters[t]});
    ++tiles.back().count;
  }
  return tiles;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
