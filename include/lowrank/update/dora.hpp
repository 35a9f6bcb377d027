#pragma once

/// DoRA: (m / n) ∘ (V X) + b by rows with V = W + s B A and n = ‖V_o‖ of each row, m trained (Liu et al. 2024, "DoRA: Weight-decomposed
/// low-rank adaptation"). n is a constant in the backward pass (their section 4.3).

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/product/multiply.hpp>
#include <lowrank/update/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// ‖W_o‖² of each row of any weight [out, in]; gives [out]. Summed in double; W is decoded 16 rows at a time, never dense as a whole.
template <class S = float>
Column<S> row_squares(const WeightView& weight) {
  constexpr Index strip = 16;
  Column<S> squares(weight.rows());
  parallel_ranges(weight.rows(), strip, [&](Index begin, Index end) {
    Weight<S> rows(end - begin, weight.cols());
    weight.decode(begin, end - begin, 0, weight.cols(), rows.data(), weight.cols());
    squares.segment(begin, end - begin) = rows.template cast<double>().rowwise().squaredNorm().template cast<S>();
  });
  return squares;
}

/// n = ‖W_o + s B_o A‖ of each row, from ‖W_o‖² and P = W Aᵀ [out, r]; the product B A is never made:
///
///   n² = ‖W_o‖² + 2 s ⟨P_o, B_o⟩ + s² B_o (A Aᵀ) B_oᵀ.
///
/// Cost: 2 r (in + out) r FLOPs beside P. Throws ShapeError.
template <class S>
Column<S> dora_norms(const Column<S>& weight_squares, const FactorView<S>& a, const FactorView<S>& b, S scale, const ActivationView<S>& p) {
  const Index out = b.rows, rank = b.cols;
  check<ShapeError>(weight_squares.size() == out && p.rows() == out && p.cols() == rank, "dora_norms", "‖W‖² is [", weight_squares.size(),
                    "], W Aᵀ is [", p.rows(), ", ", p.cols(), "], B is [", out, ", ", rank,
                    "]; they must be [out], [out, rank], [out, rank]");
  const Activation<S> gram = multiply(a.source(), Activation<S>(a.matrix().transpose()));  // A Aᵀ     [r, r]
  const Activation<S> bg = multiply(b.source(), gram);                                     // B A Aᵀ   [out, r]
  const double s = static_cast<double>(scale);
  Column<S> norms(out);
  for (Index o = 0; o < out; ++o) {
    double sum = static_cast<double>(weight_squares[o]);
    for (Index j = 0; j < rank; ++j)
      sum += s * static_cast<double>(b.matrix()(o, j)) * (2 * static_cast<double>(p(o, j)) + s * static_cast<double>(bg(o, j)));
    norms[o] = static_cast<S>(std::sqrt(std::max(0.0, sum)));
  }
  return norms;
}

/// m / n, the factor of each row. A row of zeros has no direction: its factor is 1, and what it multiplies is zero.
template <class S, MatrixLike M>
Column<S> dora_gain(const M& magnitude, const Column<S>& norms) {
  Column<S> gain(norms.size());
  for (Index o = 0; o < norms.size(); ++o) gain[o] = norms[o] > 0 ? magnitude(o, 0) / norms[o] : S(1);
  return gain;
}

/// The numbers of one DoRA update. A method (update/method.hpp).
template <class S = float, int Rank = Dynamic, int In = Dynamic, int Out = Dynamic>
struct DoraWeights : LoraWeights<S, Rank, In, Out> {
  using Lora = LoraWeights<S, Rank, In, Out>;
  static constexpr const char* method = "dora";

  Parameter<S> magnitude = {};    ///< m [out], the length of each row
  Column<S> weight_squares = {};  ///< ‖W_o‖² of each row of the base; empty: taken when they are needed
  Column<S> gain = {};            ///< m / n for inference, by prepare(); empty: computed for each pass

  bool is_dora() const { return !magnitude.empty(); }
  /// n of the layer and this update as of now. Cost: one pass over W with r tokens. Throws ValueError where W cannot be read.
  Column<S> norms(const LayerView<S>& layer) {
    check<ValueError>(layer.weight.rows() > 0, "dora",
                      "the base's weight cannot be read, or is trained itself; DoRA needs a frozen one: "
                      "Linear, FrozenLinear or QuantizedLinear, after set_trainable(false)");
    if (weight_squares.size() == 0) weight_squares = row_squares<S>(layer.weight);
    const Activation<S> p = multiply(layer.weight, Activation<S>(this->a.value.transpose()), layer.compute);  // W Aᵀ   [out, r]
    return dora_norms<S>(weight_squares, factor(this->a), factor(this->b), this->scale, p);
  }
  /// m becomes n, so that the layer begins as it would without.
  void begin(const LayerView<S>& layer) {
    check<ValueError>(this->bias.empty(), "dora", "DoRA with lora_bias is not defined; choose one of them");
    weight_squares = row_squares<S>(layer.weight);
    magnitude.name = "lora_magnitude_vector";
    magnitude.is_vector = true;
    magnitude.value = norms(layer);
  }
  /// Computes m / n once, for inference with fixed weights: from then on DoRA costs a factor a row.
  void prepare(const LayerView<S>& layer) {
    if (is_dora()) gain = dora_gain(magnitude.value, norms(layer));
  }

  Plan<S> plan(const PlanRequest<S>& request) & {
    Plan<S> plan = Lora::plan(request);
    if (magnitude.empty()) return plan;
    if (!request.is_recorded && gain.size() > 0) {
      plan.gain.factors = gain;
      return plan;
    }
    plan.gain.n = norms(request.layer);
    plan.gain.factors = dora_gain(magnitude.value, plan.gain.n);
    plan.gain.m = magnitude.value.data();
    plan.trains_gain = magnitude.needs_grad();
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) {
    Lora::add_gradients(gradients);
    add_gradient(magnitude, gradients.gain);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    Lora::visit_parameters(visitor);
    if (!magnitude.empty()) visitor(magnitude);
  }
  bool needs_grad() const { return Lora::needs_grad() || magnitude.needs_grad(); }
  void set_trainable(bool trainable) {
    Lora::set_trainable(trainable);
    magnitude.trainable = trainable;
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
