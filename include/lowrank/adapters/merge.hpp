#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/quant/matrix.hpp>

/// Merging: W' = W + s B A, for DoRA diag(m / n) (W + s B A), stored in some format. The sum is formed in fp32 a window at a time and
/// rounded once; no dense copy of W or of the update is made.

namespace lowrank::inline LOWRANK_ABI {

/// W + s B A (or its DoRA form) as a source: what a merge is to store. W is a source that is a value; the update must outlive it.
template <Source W>
class MergedSource {
 public:
  /// gain: m / n of a DoRA update, else empty.
  MergedSource(W weight, const LowRank<float>& update, Vector<float> gain = {})
      : weight_(std::move(weight)), update_(update), gain_(std::move(gain)) {
    check<ShapeError>(update.b.rows() == weight_.rows() && update.a.cols() == weight_.cols() && update.a.rows() == update.b.cols(), "merge",
                      "A is [", update.a.rows(), ", ", update.a.cols(), "], B is [", update.b.rows(), ", ", update.b.cols(), "], W is [",
                      weight_.rows(), ", ", weight_.cols(), "]; A must be [rank, in], B [out, rank] and W [out, in]");
  }

  Index rows() const { return weight_.rows(); }
  Index cols() const { return weight_.cols(); }

  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    Weight<float> w(count, length), product = Weight<float>::Zero(count, length);
    weight_.decode(row, count, col, length, w.data(), length);
    for (Index i = 0; i < count; ++i)  // [count, r] · [r, length], each element in the order of r however the matrix is cut
      for (Index k = 0; k < update_.a.rows(); ++k) product.row(i) += update_.b(row + i, k) * update_.a.row(k).segment(col, length);
    w += update_.scale * product;
    if (gain_.size() > 0) w.array().colwise() *= gain_.segment(row, count).array();
    for (Index i = 0; i < count; ++i)
      for (Index j = 0; j < length; ++j) out[i * stride + j] = static_cast<Scalar>(w(i, j));
  }

 private:
  W weight_;
  LowRank<float> update_;
  Vector<float> gain_;
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

/// The blocks of a source that is quantized in blocks, however it is held.
template <class W>
std::optional<BlockSource> blocks_of(const W& w) {
  std::optional<BlockSource> blocks;
  if constexpr (requires { BlockSource(w.source()); }) {
    blocks = w.source();
  } else if constexpr (requires { w.visit_source([](const auto&) {}); }) {
    w.visit_source([&](const auto& simple) {
      if constexpr (std::is_same_v<std::decay_t<decltype(simple)>, BlockSource>) blocks = simple;
    });
  }
  return blocks;
}

/// How many numbers of a row are stored otherwise than before: codes where both are 4-bit blocks of one kind, else values.
inline Index changed_in_row(const std::optional<BlockSource>& before, const std::optional<BlockSource>& after, Index row,
                            const std::vector<float>& w, const std::vector<float>& q) {
  Index changed = 0;
  if (before && after && before->order == after->order && before->order != CodeOrder::bytes && before->group == after->group) {
    for (Index j = 0; j < static_cast<Index>(w.size()); ++j)
      changed += before->nibble(row * before->pitch + j) != after->nibble(row * after->pitch + j);
  } else {
    for (std::size_t j = 0; j < w.size(); ++j) changed += w[j] != q[j];
  }
  return changed;
}

}  // namespace detail

/// Compares what was stored with what should have been. Cost: one pass over all three.
template <Source Before, Source Merged, Source After>
MergeReport merge_report(const Before& before, const Merged& merged, const After& after) {
  check<ShapeError>(before.rows() == after.rows() && before.cols() == after.cols(), "merge", "the base is [", before.rows(), ", ",
                    before.cols(), "] but what was stored is [", after.rows(), ", ", after.cols(), ']');
  const Index cols = before.cols();
  const auto old_blocks = detail::blocks_of(before), new_blocks = detail::blocks_of(after);
  std::vector<detail::MergeSums> by_row(static_cast<std::size_t>(before.rows()));
  parallel_ranges(before.rows(), std::max<Index>(1, (1 << 14) / std::max<Index>(cols, 1)), [&](Index begin, Index end) {
    std::vector<float> w(static_cast<std::size_t>(cols)), v(w.size()), q(w.size());
    for (Index row = begin; row < end; ++row) {
      before.decode(row, 1, 0, cols, w.data(), cols);
      merged.decode(row, 1, 0, cols, v.data(), cols);
      after.decode(row, 1, 0, cols, q.data(), cols);
      detail::MergeSums& sums = by_row[static_cast<std::size_t>(row)];
      for (std::size_t j = 0; j < w.size(); ++j) {
        const double delta = static_cast<double>(v[j]) - static_cast<double>(w[j]),
                     rest = static_cast<double>(q[j]) - static_cast<double>(v[j]);
        sums.update += delta * delta;
        sums.error += rest * rest;
        sums.merged += static_cast<double>(v[j]) * static_cast<double>(v[j]);
        sums.along += (static_cast<double>(q[j]) - static_cast<double>(w[j])) * delta;
      }
      sums.changed = detail::changed_in_row(old_blocks, new_blocks, row, w, q);
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
  parallel_ranges(rows, std::max<Index>(1, (1 << 14) / std::max<Index>(cols, 1)), [&](Index begin, Index end) {
    std::vector<float> numbers(static_cast<std::size_t>(cols));
    for (Index row = begin; row < end; ++row) {
      source.decode(row, 1, 0, cols, numbers.data(), cols);
      for (Index j = 0; j < cols; ++j) {
        const auto rounded = static_cast<Element>(numbers[static_cast<std::size_t>(j)]);
        check<ValueError>(std::isfinite(static_cast<float>(rounded)), "merge", "weight [", row, ", ", j, "] becomes ",
                          numbers[static_cast<std::size_t>(j)], ", which is not finite in the format it is stored in; check the adapter");
        out[row * cols + j] = rounded;
      }
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
    Base result = base;
    auto& w = result.weight().value;
    merged.decode(0, merged.rows(), 0, merged.cols(), w.data(), merged.cols());
    check<ValueError>(w.allFinite(), "merge", "the merged weight is not finite; check the adapter");
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
template <class Base, int Rank>
requires HasSource<Base> MergeReport merge(LoraLinear<Base, Rank>& layer, const MergePolicy& policy = {}) {
  check<Error>(!layer.is_merged(), "merge", "the layer is merged already; unmerge it first");
  static_assert(std::is_same_v<typename Base::Scalar, float>, "merge(layer): the layer must compute in float");
  const auto& update = layer.update();
  check<ValueError>(update.bias.empty() || !layer.base().bias().empty(), "merge",
                    "the update has a bias but the base has none; give the base a bias of zeros");
  Vector<float> gain;
  if (update.is_dora()) gain = dora_gain(update.magnitude.value, dora_norms(layer.base(), update));
  const auto source = layer.base().source();
  const MergedSource merged(source, update.view(), std::move(gain));
  Base result = detail::with_weight(layer.base(), merged, policy.search);
  if (!update.bias.empty()) result.bias().value += update.scale * update.bias.value;
  const MergeReport report = merge_report(source, merged, result.source());
  layer.set_merged(std::move(result));
  return report;
}

/// Puts the base's own bytes back, bit for bit. Throws Error when the layer is not merged.
template <class Base, int Rank>
void unmerge(LoraLinear<Base, Rank>& layer) {
  check<Error>(layer.is_merged(), "unmerge", "the layer is not merged");
  layer.reset_merged();
}

}  // namespace lowrank::inline LOWRANK_ABI
