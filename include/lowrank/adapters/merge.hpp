#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/adapters/recompress.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/nn/adapted.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/product/plan.hpp>
#include <lowrank/quant/matrix.hpp>

/// Merging: W' = g ∘ (W P + s B M A + s Δ) of a layer's plan, stored in some format. The sum is formed in fp32 a window at a time and
/// rounded once; no dense copy of W or of the update is made.

namespace lowrank::inline LOWRANK_ABI {

/// W' = g ∘ (W P + s B M A + s Δ) as a source: what a merge is to store. The weight and what the plan points at must outlive it.
class MergedSource {
 public:
  /// Throws ShapeError for factors that do not fit the weight.
  MergedSource(const WeightView& weight, Plan<float> plan);

  Index rows() const { return weight_.rows(); }
  Index cols() const { return weight_.cols(); }

  /// Each element is one sum in the order of r, however the matrix is cut. Cost: 2 r FLOPs an element, and P of whole rows where there is
  /// one; fast for eight rows or more.
  void decode(Index row, Index count, Index col, Index length, float* out, Index stride) const;
  void decode(Index row, Index count, Index col, Index length, double* out, Index stride) const;

 private:
  void read_weight(Index row, Index count, Index col, Index length, float* out, Index stride) const;
  void add_factors(Index row, Index count, Index col, Index length, float* out, Index stride) const;
  const float* a() const { return through_middle_.size() > 0 ? through_middle_.data() : plan_.a.data; }

  WeightView weight_;
  Plan<float> plan_;
  Weight<float> through_middle_;  // M A, where there is an M or A is a part of a matrix
};

/// The bias of a layer with a plan merged into it: b, times g where the plan says so, + s times that of the update. Either may be empty.
Column<float> merged_bias(const Plan<float>& plan, const Column<float>& bias);

/// What became of an update that was stored with its base. Norms are Frobenius's, Δ = W' − W before rounding, Q what was stored.
struct MergeReport {
  double update_norm = 0;     ///< ‖Δ‖
  double error_norm = 0;      ///< ‖Q − W'‖: what rounding changed
  double relative_error = 0;  ///< ‖Q − W'‖ / ‖W'‖
  double survived = 1;        ///< ⟨Q − W, Δ⟩ / ‖Δ‖²: the part of the update that is there; 1: all of it
  double codes_changed = 0;   ///< share of the stored numbers or codes that differ from the base's
};

/// `MergeReport: relative error 0.0021, 97.4 % of the update survived, 12.5 % of the codes changed`.
inline std::string describe(const MergeReport& report) {
  return concat("MergeReport: relative error ", report.relative_error, ", ", 100 * report.survived, " % of the update survived, ",
                100 * report.codes_changed, " % of the codes changed");
}

/// Compares what was stored with what should have been. Cost: one pass over all three.
MergeReport merge_report(const WeightView& before, const WeightView& merged, const WeightView& after);

namespace detail {
/// Rows that one thread goes through at a time.
Index merge_grain(Index cols);
}  // namespace detail

/// A source rounded once to dense numbers of another type. Throws ValueError that names the first number that is not finite afterwards.
template <class Element>
StoredMatrix<Element> round_to(const WeightView& source) {
  const Index rows = source.rows(), cols = source.cols();
  Buffer buffer = Buffer::allocate(static_cast<std::size_t>(rows * cols) * sizeof(Element));
  auto* out = buffer.mutable_as<Element>();
  parallel_ranges(rows, detail::merge_grain(cols), [&](Index begin, Index end) {
    std::vector<float> numbers(static_cast<std::size_t>((end - begin) * cols));
    source.decode(begin, end - begin, 0, cols, numbers.data(), cols);
    for (Index i = 0; i < (end - begin) * cols; ++i) {
      const float number = numbers[static_cast<std::size_t>(i)];
      const auto rounded = static_cast<Element>(number);
      if (!is_finite(static_cast<float>(rounded)))
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

template <class Format>
QuantizedMatrix<Format> requantize(const QuantizedMatrix<Format>&, const MergedSource& merged, bool search) {
  if constexpr (!WritableFormat<Format>) {
    fail<ValueError>("merge", Format::name, " is only read; merge to a dense layer instead: round_to<bfloat16>(…)");
  } else {
    if constexpr (TableFormat<Format>)
      if (search) return quantize<Format>(merged, Search{});
    return quantize<Format>(merged);
  }
}
template <class Element>
StoredMatrix<Element> requantize(const StoredMatrix<Element>&, const MergedSource& merged, bool) {
  return round_to<Element>(merged);
}

/// The base with what `merged` says in place of its weight, in its own format.
template <class Base>
Base with_weight(const Base& base, const MergedSource& merged, bool search) {
  if constexpr (is_dense_linear<Base>) {
    std::decay_t<decltype(base.weight().value)> w(merged.rows(), merged.cols());
    platform::prefer_large_pages(w.data(), static_cast<std::size_t>(w.size()) * sizeof(float));
    parallel_ranges(w.rows(), merge_grain(w.cols()),
                    [&](Index begin, Index end) { merged.decode(begin, end - begin, 0, w.cols(), w.data() + begin * w.cols(), w.cols()); });
    check<ValueError>(detail::all_finite(w), "merge", "the merged weight is not finite; check the adapter");
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
  auto& bias = layer.base().bias().value;
  check<ValueError>(plan.bias.empty() || bias.size() > 0, "merge",
                    "the update has a bias but the base has none; give the base a bias of zeros");
  const auto source = layer.base().source();
  const MergedSource merged(source, plan);
  Base result = detail::with_weight(layer.base(), merged, policy.search);
  if (bias.size() > 0) result.bias().value = merged_bias(plan, bias);
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
