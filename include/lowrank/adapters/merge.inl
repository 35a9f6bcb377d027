#pragma once

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE Index merge_grain(Index cols) { return std::max<Index>(1, (1 << 15) / std::max<Index>(cols, 1)); }

LOWRANK_INLINE Index changed_codes(const BlockSource& before, const BlockSource& after, Index row, Index cols) {
  const Index begin = row * before.pitch, bytes = before.block / 2;
  Index changed = 0, done = 0;
  const auto compare = [&](const std::byte* x, const std::byte* y, Index count) {
    for (Index i = 0; i < count; ++i) {
      const auto differ = static_cast<unsigned>(x[i] ^ y[i]);
      changed += (differ & 15u) != 0;
      changed += differ >> 4 != 0;
    }
  };
  if (before.order == CodeOrder::nibble_pairs && begin % 2 == 0) {
    compare(before.data + begin / 2, after.data + begin / 2, cols / 2);
    done = cols / 2 * 2;
  } else if (before.order == CodeOrder::nibble_halves && begin % before.block == 0) {
    for (; done + before.block <= cols; done += before.block)
      compare(before.block_of(begin + done) + before.codes_at, after.block_of(begin + done) + after.codes_at, bytes);
  }
  for (; done < cols; ++done) changed += before.nibble(begin + done) != after.nibble(begin + done);
  return changed;
}

LOWRANK_INLINE bool have_like_codes(const std::optional<BlockSource>& x, const std::optional<BlockSource>& y) {
  return x && y && x->order == y->order && x->order != CodeOrder::bytes && x->group == y->group && x->block == y->block &&
         x->run == y->run && x->pitch == y->pitch;
}

LOWRANK_INLINE void add_to_sums(const float* w, const float* v, const float* q, Index n, MergeSums& sums) {
  const kernels::Elementwise& table = kernels::current_target().elementwise;
  constexpr Index width = 1024;
  alignas(64) float delta[width], rest[width], kept[width];
  for (Index begin = 0; begin < n; begin += width, w += width, v += width, q += width) {
    const Index count = std::min(width, n - begin);
    std::copy_n(v, count, delta);
    std::copy_n(q, count, rest);
    std::copy_n(q, count, kept);
    table.add(w, -1, count, delta);  // Δ = W' - W
    table.add(v, -1, count, rest);   // Q - W'
    table.add(w, -1, count, kept);   // Q - W
    const auto dot = [&](const float* x, const float* y) {
      float result;
      table.dots(x, count, 1, y, count, &result);
      return static_cast<double>(result);
    };
    sums.update += dot(delta, delta);
    sums.error += dot(rest, rest);
    sums.merged += dot(v, v);
    sums.along += dot(kept, delta);
  }
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
