#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/driver/decode.hpp>
#include <lowrank/kernels/driver/pieces.hpp>
#include <lowrank/kernels/driver/scratch.hpp>
#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/adapted.hpp>
#include <lowrank/quant/matrix.hpp>

/// Merging: W' = g ∘ (W + s B A) of a layer's plan, stored in some format. The sum is formed in fp32 a window at a time and
/// rounded once; no dense copy of W or of the update is made.

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A window of any source as floats, by the kernels where the source is one matrix in memory.
template <Source W>
void read_window(const W& w, Index row, Index count, Index col, Index length, float* out, Index stride) {
  const kernels::Pieces pieces(w);
  const kernels::Piece& piece = *pieces.begin();
  if (pieces.size() != 1 || piece.transposed || piece.scale != 1) return w.decode(row, count, col, length, out, stride);
  kernels::decode(kernels::current_target(), piece.weight, row, count, col, length, out, stride);
}

}  // namespace detail

/// W' = g ∘ (W + s B A) as a source: what a merge is to store. W is a source that is a value; the update must outlive it.
template <Source W>
class MergedSource {
 public:
  MergedSource(W weight, Plan<float> plan) : weight_(std::move(weight)), plan_(std::move(plan)) {
    const auto &a = plan_.a, &b = plan_.b;
    check<ShapeError>(b.rows == weight_.rows() && a.cols == weight_.cols() && a.rows == b.cols, "merge", "A is [", a.rows, ", ", a.cols,
                      "], B is [", b.rows, ", ", b.cols, "], W is [", weight_.rows(), ", ", weight_.cols(),
                      "]; A must be [rank, in], B [out, rank] and W [out, in]");
  }

  Index rows() const { return weight_.rows(); }
  Index cols() const { return weight_.cols(); }

  /// Each element is one sum in the order of r, however the matrix is cut. Cost: 2 r FLOPs an element; fast for eight rows or more.
  void decode(Index row, Index count, Index col, Index length, float* out, Index stride) const {
    const kernels::Elementwise& table = kernels::current_target().elementwise;
    const Index rank = plan_.a.rows, width = std::clamp<Index>((1 << 13) / std::max<Index>(rank, 1) / 64 * 64, 64, max_width);
    detail::read_window(weight_, row, count, col, length, out, stride);
    float* const a = kernels::Scratch<MergedSource>::template get<float>(rank * width);
    for (Index begin = 0; begin < length; begin += width) {
      const Index n = std::min(width, length - begin);
      for (Index k = 0; k < rank; ++k) std::copy_n(plan_.a.data + k * plan_.a.cols + col + begin, n, a + k * n);
      for (Index i = 0; i < count; ++i) {  // gain (w + s Σ b a)
        alignas(64) float product[max_width] = {};
        table.add_weighted_rows(a, n, rank, plan_.b.data + (row + i) * rank, n, product);
        table.add(product, plan_.scale, n, out + i * stride + begin);
        if (!plan_.gain.empty()) table.scale(plan_.gain.factors[row + i], n, out + i * stride + begin);
      }
    }
  }
  void decode(Index row, Index count, Index col, Index length, double* out, Index stride) const {
    Weight<float> sum(count, length);
    decode(row, count, col, length, sum.data(), length);
    for (Index i = 0; i < count; ++i)
      for (Index j = 0; j < length; ++j) out[i * stride + j] = static_cast<double>(sum(i, j));
  }

 private:
  static constexpr Index max_width = 1024;  ///< columns of A that are used at a time, and stay in the first cache

  W weight_;
  Plan<float> plan_;
};

/// What became of an update that was stored with its base. Norms are Frobenius's, Δ = W' − W before rounding, Q what was stored.
struct MergeReport {
  double update_norm = 0;     ///< ‖Δ‖
  double error_norm = 0;      ///< ‖Q − W'‖: what rounding changed
  double relative_error = 0;  ///< ‖Q − W'‖ / ‖W'‖
  double survived = 1;        ///< ⟨Q − W, Δ⟩ / ‖Δ‖²: the part of the update that is there; 1: all of it
  double codes_changed = 0;   ///< share of the stored numbers or codes that differ from the base's
};

namespace detail {

struct MergeSums {
  double update = 0, error = 0, merged = 0, along = 0;
  Index changed = 0;
};

/// Rows that one thread goes through at a time.
Index merge_grain(Index cols);

/// The blocks of a source that is quantized in blocks, however it is held.
template <class W>
std::optional<BlockSource> blocks_of(const W& w) {
  const WeightView view(w);
  return view.kind() == WeightView::Kind::blocks ? std::optional(view.blocks()) : std::nullopt;
}

/// How many 4-bit codes of one row differ, of blocks of one kind.
Index changed_codes(const BlockSource& before, const BlockSource& after, Index row, Index cols);

/// Whether two matrices hold 4-bit codes of one kind, which then can be compared.
bool have_like_codes(const std::optional<BlockSource>& x, const std::optional<BlockSource>& y);

/// Adds n numbers of the base w, of the sum v that was to be stored and of what was, q, to the sums of a row. Numbers that are equal give
/// sums that are equal.
void add_to_sums(const float* w, const float* v, const float* q, Index n, MergeSums& sums);

}  // namespace detail

/// Compares what was stored with what should have been. Cost: one pass over all three.
template <Source Before, Source Merged, Source After>
MergeReport merge_report(const Before& before, const Merged& merged, const After& after) {
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
    merged.decode(begin, end - begin, 0, cols, v.data(), cols);
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

/// A source rounded once to dense numbers of another type. Throws ValueError that names the first number that is not finite afterwards.
template <class Element, Source W>
StoredMatrix<Element> round_to(const W& source) {
  const Index rows = source.rows(), cols = source.cols();
  Buffer buffer = Buffer::allocate(static_cast<std::size_t>(rows * cols) * sizeof(Element));
  auto* out = buffer.mutable_as<Element>();
  parallel_ranges(rows, detail::merge_grain(cols), [&](Index begin, Index end) {
    std::vector<float> numbers(static_cast<std::size_t>((end - begin) * cols));
    source.decode(begin, end - begin, 0, cols, numbers.data(), cols);
    for (Index i = 0; i < (end - begin) * cols; ++i) {
      const float number = numbers[static_cast<std::size_t>(i)];
      const auto rounded = static_cast<Element>(number);
      if (!std::isfinite(static_cast<float>(rounded)))
        fail<ValueError>("merge", "weight [", begin + i / cols, ", ", i % cols, "] becomes ", number,
                         ", which is not finite in the format it is stored in; check the adapter");
      out[begin * cols + i] = rounded;
    }
  });
  return StoredMatrix<Element>(rows, cols, std::move(buffer));
}

namespace detail {

template <class Base>
inline constexpr bool is_dense_linear = false;
template <class S, int In, int Out>
inline constexpr bool is_dense_linear<Linear<S, In, Out>> = true;

template <class Base>
inline constexpr bool is_quantized_linear = false;
template <class Format, class S>
inline constexpr bool is_quantized_linear<SourceLinear<QuantizedMatrix<Format>, S>> = true;

template <class Format, Source W>
QuantizedMatrix<Format> requantize(const QuantizedMatrix<Format>&, const W& merged, bool search) {
  if constexpr (!WritableFormat<Format>) {
    fail<ValueError>("merge", Format::name, " is only read; merge to a dense layer instead: round_to<bfloat16>(…)");
  } else {
    if constexpr (TableFormat<Format>)
      if (search) return quantize<Format>(merged, Search{});
    return quantize<Format>(merged);
  }
}
template <class Element, Source W>
StoredMatrix<Element> requantize(const StoredMatrix<Element>&, const W& merged, bool) {
  return round_to<Element>(merged);
}

/// The base with what `merged` says in place of its weight, in its own format.
template <class Base, Source W>
Base with_weight(const Base& base, const W& merged, bool search) {
  if constexpr (is_dense_linear<Base>) {
    std::decay_t<decltype(base.weight().value)> w(merged.rows(), merged.cols());
    prefer_large_pages(w.data(), static_cast<std::size_t>(w.size()) * sizeof(float));
    parallel_ranges(w.rows(), merge_grain(w.cols()),
                    [&](Index begin, Index end) { merged.decode(begin, end - begin, 0, w.cols(), w.data() + begin * w.cols(), w.cols()); });
    check<ValueError>(w.allFinite(), "merge", "the merged weight is not finite; check the adapter");
    Base result(std::move(w), base.bias().value);
    result.weight().trainable = base.weight().trainable;
    result.bias().trainable = base.bias().trainable;
    result.set_compute(base.compute());
    return result;
  } else {
    Base result(requantize(base.weight(), merged, search), base.bias().value);
    result.set_compute(base.compute());
    return result;
  }
}

}  // namespace detail

/// How a layer is merged.
struct MergePolicy {
  bool search = false;  ///< NF4 and FP4: scales by search, 5 to 7 % less error
};

/// Stores the update in the base's own format: afterwards the layer costs what its base costs. The base's bytes are kept for unmerge().
///
/// Throws Error when it is merged already, ValueError for a format that cannot be written or a result that is not finite; then nothing has
/// changed. With a quantized base part of the update is lost: the report says how much, residual_update() of the adapters what could be
/// kept.
template <class Base, class Method>
requires HasSource<Base> MergeReport merge(Adapted<Base, Method>& layer, const MergePolicy& policy = {}) {
  check<Error>(!layer.is_merged(), "merge", "the layer is merged already; unmerge it first");
  static_assert(std::is_same_v<typename Base::Scalar, float>, "merge(layer): the layer must compute in float");
  const Plan<float> plan = layer.plan();
  check<ValueError>(plan.bias.empty() || !layer.base().bias().empty(), "merge",
                    "the update has a bias but the base has none; give the base a bias of zeros");
  const auto source = layer.base().source();
  const MergedSource merged(source, plan);
  Base result = detail::with_weight(layer.base(), merged, policy.search);
  if (!plan.bias.empty()) result.bias().value += plan.scale * plan.bias.matrix();
  const MergeReport report = merge_report(source, merged, result.source());
  layer.set_merged(std::move(result));
  return report;
}

/// Puts the base's own bytes back, bit for bit. Throws Error when the layer is not merged.
template <class Base, class Method>
void unmerge(Adapted<Base, Method>& layer) {
  check<Error>(layer.is_merged(), "unmerge", "the layer is not merged");
  layer.reset_merged();
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/merge.inl>
#endif
