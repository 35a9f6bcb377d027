#pragma once

/// DoRA: (m / n) ∘ (V X) + b by rows with V = W + s B A and n = ‖V_o‖ of each row, m trained (Liu et al. 2024, "DoRA: Weight-decomposed
/// low-rank adaptation"). n is a constant in the backward pass (their section 4.3).

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/autograd/functions.hpp>
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

/// DoRA of a token table E [vocabulary, dim]: its parts are the table's columns, so m and n = ‖(E + s (B A)ᵀ)_d‖ are [dim].
///
/// Cost: one pass over the table with r columns; ‖E_d‖² is taken once. Throws ShapeError.
template <class S>
Column<S> dora_table_norms(const WeightView& table, DoraWeights<S>& update) {
  if (update.weight_squares.size() == 0) {
    constexpr Index strip = 64;
    Column<double> squares = Column<double>::Zero(table.cols());
    for (Index begin = 0; begin < table.rows(); begin += strip) {
      Weight<S> rows(std::min(strip, table.rows() - begin), table.cols());
      table.decode(begin, rows.rows(), 0, table.cols(), rows.data(), table.cols());
      squares += rows.template cast<double>().colwise().squaredNorm().transpose();
    }
    update.weight_squares = squares.template cast<S>();
  }
  const Activation<S> p = multiply_transposed(table, Activation<S>(update.a.value.transpose()));  // Eᵀ Aᵀ   [dim, r]
  return dora_norms<S>(update.weight_squares, factor(update.a), factor(update.b), update.scale, p);
}

/// (m / n) ∘ Y at the columns [begin, begin + count), recorded: what add_embedding_update gave becomes DoRA's. Keeps Y. Without a tape the
/// update's own `gain` serves, where there is one. Throws ShapeError.
template <class S>
Var<S> scale_embedding(Var<S> y, Index begin, Index count, const WeightView& table, DoraWeights<S>& update) {
  const bool is_prepared = y.tape() == nullptr && update.gain.size() > 0;
  const Column<S> norms = is_prepared ? Column<S>() : dora_table_norms(table, update);
  const Column<S> gain = is_prepared ? update.gain : dora_gain(update.magnitude.value, norms);
  check<ShapeError>(gain.size() == y.rows() && begin >= 0 && begin + count <= y.cols(), "embedding_dora", "y is [", y.rows(), ", ",
                    y.cols(), "], m is [", gain.size(), "], tokens are [", begin, ", ", begin + count, ')');
  Activation<S> z = y.value(), before = z.middleCols(begin, count);
  z.middleCols(begin, count) = gain.asDiagonal() * before;
  auto backward = [m = Handle(update.magnitude), gain, norms, begin, count, before = std::move(before)](auto& flow) {
    Activation<S> g = flow.take();
    auto part = g.middleCols(begin, count);
    if (m->needs_grad())
      m->gradient().col(0).array() +=
          norms.array().binaryExpr(part.cwiseProduct(before).rowwise().sum().array(), [](S n, S sum) { return n > 0 ? sum / n : S(0); });
    part = (gain.asDiagonal() * part).eval();
    flow.add(0, std::move(g));
  };
  return y.tape() ? y.tape()->record(std::move(z), {y}, std::move(backward), update.magnitude.needs_grad()) : Var<S>(std::move(z));
}

}  // namespace lowrank::inline LOWRANK_ABI
