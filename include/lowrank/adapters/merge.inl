#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include <lowrank/kernels/driver/decode.hpp>
#include <lowrank/kernels/driver/scratch.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

struct MergeSums {
  double update = 0, error = 0, merged = 0, along = 0;
  Index changed = 0;
};

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
      table.float_rows.dots(x, count, 1, y, 1, count, &result, 1);
      return static_cast<double>(result);
    };
    sums.update += dot(delta, delta);
    sums.error += dot(rest, rest);
    sums.merged += dot(v, v);
    sums.along += dot(kept, delta);
  }
}

LOWRANK_INLINE std::optional<BlockSource> blocks_of(const WeightView& w) {
  return w.kind() == WeightView::Kind::blocks ? std::optional(w.blocks()) : std::nullopt;
}

/// A window as floats, by the kernels.
LOWRANK_INLINE void read_window(const WeightView& w, Index row, Index count, Index col, Index length, float* out, Index stride) {
  kernels::decode(kernels::current_target(), w, row, count, col, length, out, stride);
}

}  // namespace detail

LOWRANK_INLINE MergedSource::MergedSource(const WeightView& weight, Plan<float> plan) : weight_(weight), plan_(std::move(plan)) {
  const auto &a = plan_.a, &b = plan_.b, &middle = plan_.middle;
  const bool fits = plan_.b.empty() || (b.rows == rows() && a.cols == cols() && b.cols == (middle.empty() ? a.rows : middle.rows));
  check<ShapeError>(fits, "merge", "A is [", a.rows, ", ", a.cols, "], B is [", b.rows, ", ", b.cols, "], W is [", rows(), ", ", cols(),
                    "]; A must be [rank, in], B [out, rank] and W [out, in]");
  check<ShapeError>(!plan_.has_delta() || (plan_.delta.rows() == rows() && plan_.delta.cols() == cols()), "merge", "the change is [",
                    plan_.delta.rows(), ", ", plan_.delta.cols(), "] but W is [", rows(), ", ", cols(), ']');
  if (!a.empty() && (!middle.empty() || a.stride != a.cols)) through_middle_ = detail::through_middle(plan_);
}

LOWRANK_INLINE void MergedSource::read_weight(Index row, Index count, Index col, Index length, float* out, Index stride) const {
  if (plan_.input_map == nullptr) return detail::read_window(weight_, row, count, col, length, out, stride);
  Weight<float> whole(count, cols());  // row i of W P is (Pᵀ w_iᵀ)ᵀ
  detail::read_window(weight_, row, count, 0, cols(), whole.data(), cols());
  const Activation<float> mapped = plan_.input_map->transposed(ConstActivationMap<float>(whole.data(), cols(), count));
  for (Index i = 0; i < count; ++i) std::copy_n(mapped.data() + i * cols() + col, length, out + i * stride);
}

LOWRANK_INLINE void MergedSource::add_factors(Index row, Index count, Index col, Index length, float* out, Index stride) const {
  constexpr Index max_width = 1024;  // columns of A that are used at a time, and stay in the first cache
  const kernels::Elementwise& table = kernels::current_target().elementwise;
  const Index rank = plan_.b.cols, width = std::clamp<Index>((1 << 13) / std::max<Index>(rank, 1) / 64 * 64, 64, max_width);
  float* const columns = kernels::Scratch<MergedSource>::get<float>(rank * width);
  for (Index begin = 0; begin < length; begin += width) {
    const Index n = std::min(width, length - begin);
    for (Index k = 0; k < rank; ++k) std::copy_n(a() + k * cols() + col + begin, n, columns + k * n);
    for (Index i = 0; i < count; ++i) {  // w + s Σ b a
      alignas(64) float product[max_width] = {};
      table.float_rows.add_weighted(columns, n, rank, plan_.b.data + (row + i) * rank, rank, 1, n, product);
      table.add(product, plan_.scale, n, out + i * stride + begin);
    }
  }
}

LOWRANK_INLINE void MergedSource::decode(Index row, Index count, Index col, Index length, float* out, Index stride) const {
  const kernels::Elementwise& table = kernels::current_target().elementwise;
  read_weight(row, count, col, length, out, stride);
  if (!plan_.b.empty()) add_factors(row, count, col, length, out, stride);
  if (plan_.has_delta()) {
    std::vector<float> change(static_cast<std::size_t>(count * length));
    detail::read_window(plan_.delta, row, count, col, length, change.data(), length);
    for (Index i = 0; i < count; ++i) table.add(change.data() + i * length, plan_.scale, length, out + i * stride);
  }
  if (!plan_.gain.empty())
    for (Index i = 0; i < count; ++i) table.scale(plan_.gain.factors[row + i], length, out + i * stride);
}

LOWRANK_INLINE void MergedSource::decode(Index row, Index count, Index col, Index length, double* out, Index stride) const {
  Weight<float> sum(count, length);
  decode(row, count, col, length, sum.data(), length);
  for (Index i = 0; i < count; ++i)
    for (Index j = 0; j < length; ++j) out[i * stride + j] = static_cast<double>(sum(i, j));
}

LOWRANK_INLINE Column<float> merged_bias(const Plan<float>& plan, const Column<float>& bias) {
  Column<float> merged = bias;
  if (plan.gain.scales_bias && !plan.gain.empty() && merged.size() > 0) merged.array() *= plan.gain.factors.array();
  if (plan.bias.empty()) return merged;
  if (merged.size() == 0) merged.setZero(plan.bias.rows * plan.bias.cols);
  return merged + plan.scale * Eigen::Map<const Column<float>>(plan.bias.data, merged.size());
}

LOWRANK_INLINE MergeReport merge_report(const WeightView& before, const WeightView& merged, const WeightView& after) {
  check<ShapeError>(before.rows() == after.rows() && before.cols() == after.cols(), "merge", "the base is [", before.rows(), ", ",
                    before.cols(), "] but what was stored is [", after.rows(), ", ", after.cols(), ']');
  const Index cols = before.cols(), grain = detail::merge_grain(cols);
  const auto old_blocks = detail::blocks_of(before), new_blocks = detail::blocks_of(after);
  const bool by_code = detail::have_like_codes(old_blocks, new_blocks);
  std::vector<detail::MergeSums> by_row(static_cast<std::size_t>(before.rows()));
  parallel_ranges(before.rows(), grain, [&](Index begin, Index end) {
    const auto size = static_cast<std::size_t>((end - begin) * cols);
    std::vector<float> w(size), v(size), q(size);
    detail::read_window(before, begin, end - begin, 0, cols, w.data(), cols);
    detail::read_window(merged, begin, end - begin, 0, cols, v.data(), cols);
    detail::read_window(after, begin, end - begin, 0, cols, q.data(), cols);
    for (Index row = begin; row < end; ++row) {
      const Index at = (row - begin) * cols;
      detail::MergeSums& sums = by_row[static_cast<std::size_t>(row)];
      detail::add_to_sums(w.data() + at, v.data() + at, q.data() + at, cols, sums);
      if (by_code)
        sums.changed = detail::changed_codes(*old_blocks, *new_blocks, row, cols);
      else
        for (Index j = at; j < at + cols; ++j) sums.changed += w[static_cast<std::size_t>(j)] != q[static_cast<std::size_t>(j)];
    }
  });
  detail::MergeSums total;
  for (const auto& sums : by_row)
    total = {total.update + sums.update, total.error + sums.error, total.merged + sums.merged, total.along + sums.along,
             total.changed + sums.changed};
  return {.update_norm = std::sqrt(total.update),
          .error_norm = std::sqrt(total.error),
          .relative_error = total.merged > 0 ? std::sqrt(total.error / total.merged) : 0,
          .survived = total.update > 0 ? total.along / total.update : 1,
          .codes_changed = static_cast<double>(total.changed) / static_cast<double>(std::max<Index>(1, before.rows() * cols))};
}

}  // namespace lowrank::inline LOWRANK_ABI
