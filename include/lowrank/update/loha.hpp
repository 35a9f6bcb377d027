#pragma once

/// LoHa: W X + s (W₁ₐ W₁ᵦ ∘ W₂ₐ W₂ᵦ) X, the elementwise product of two low-rank ones, of a rank up to r² (Hyeon-Woo et al. 2021, "FedPara:
/// Low-rank Hadamard product for communication-efficient federated learning").

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/core/shape.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// (A B) ∘ (C D) as a source, decoded without a dense copy. A, C [out, r], B, D [r, in]; what it points at must outlive it.
template <class S>
class HadamardChange {
 public:
  HadamardChange(FactorView<S> a, FactorView<S> b, FactorView<S> c, FactorView<S> d) : a_(a), b_(b), c_(c), d_(d) {}

  Index rows() const { return a_.rows; }
  Index cols() const { return b_.cols; }
  /// Cost: 4 r FLOPs an element.
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    std::vector<Scalar> other(static_cast<std::size_t>(length));
    for (Index i = 0; i < count; ++i) {
      Scalar* const own = out + i * stride;
      product_row(a_, b_, row + i, col, length, own);
      product_row(c_, d_, row + i, col, length, other.data());
      for (Index j = 0; j < length; ++j) own[j] *= other[static_cast<std::size_t>(j)];
    }
  }

 private:
  template <class Scalar>
  static void product_row(const FactorView<S>& left, const FactorView<S>& right, Index row, Index col, Index length, Scalar* out) {
    std::fill_n(out, length, Scalar(0));
    for (Index p = 0; p < left.cols; ++p) {
      const Scalar factor = static_cast<Scalar>(left.data[row * left.cols + p]);
      const S* const from = right.data + p * right.cols + col;
      for (Index j = 0; j < length; ++j) out[j] += factor * static_cast<Scalar>(from[j]);
    }
  }
  FactorView<S> a_, b_, c_, d_;
};

/// A fresh LoHa update.
struct LohaOptions {
  Index rank = 8;
  double alpha = 8;  ///< s = alpha / r
  std::uint64_t seed = 0, stream = 0;
};

/// The numbers of one LoHa update. A method (update/method.hpp).
template <class S = float>
struct LohaWeights {
  using Scalar = S;

  Parameter<S> w1_a, w1_b, w2_a, w2_b;  ///< [out, r], [r, in], twice
  S scale = S(1);

  Plan<S> plan(const PlanRequest<S>&) & {
    const auto change = std::make_shared<const HadamardChange<S>>(factor(w1_a), factor(w1_b), factor(w2_a), factor(w2_b));
    Plan<S> plan;
    plan.delta = WeightView(*change);
    plan.scale = scale;
    plan.trains_delta = w1_a.needs_grad() || w1_b.needs_grad() || w2_a.needs_grad() || w2_b.needs_grad();
    plan.held = change;
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  /// With D = dΔ ∘ (W₂ₐ W₂ᵦ): dW₁ₐ = D W₁ᵦᵀ, dW₁ᵦ = W₁ₐᵀ D; the second product alike.
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.delta.size() == 0) return;
    add_half(gradients.delta, w1_a, w1_b, w2_a, w2_b);
    add_half(gradients.delta, w2_a, w2_b, w1_a, w1_b);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(w1_a);
    visitor(w1_b);
    visitor(w2_a);
    visitor(w2_b);
  }
  void set_trainable(bool trainable) { w1_a.trainable = w1_b.trainable = w2_a.trainable = w2_b.trainable = trainable; }

 private:
  static void add_half(const Weight<S>& delta, Parameter<S>& a, Parameter<S>& b, Parameter<S>& other_a, Parameter<S>& other_b) {
    add_product_gradients<S>(a, b, delta.cwiseProduct(Weight<S>(times<S>(other_a.value, other_b.value))));
  }
};

/// A fresh update of a weight [out, in]: the last factor is zero, so that the layer begins as its base. Throws ValueError,
/// ShapeError.
template <class S = float>
LohaWeights<S> make_loha(Index in, Index out, const LohaOptions& options = {}) {
  const Index rank = options.rank;
  check<ValueError>(rank > 0, "loha", "rank = ", rank, "; it must be at least 1");
  element_count("loha", "a factor [out, rank]", {out, rank}), element_count("loha", "a factor [rank, in]", {rank, in});
  LohaWeights<S> update;
  update.w1_a.name = "hada_w1_a", update.w1_b.name = "hada_w1_b", update.w2_a.name = "hada_w2_a", update.w2_b.name = "hada_w2_b";
  update.w1_a.value.resize(out, rank), update.w2_a.value.resize(out, rank);
  update.w1_b.value.resize(rank, in);
  update.w2_b.value.setZero(rank, in);
  const auto draw = [&](Weight<S>& w, Index cols, std::uint64_t k) {
    fill_uniform(w, 1.0 / std::sqrt(static_cast<double>(cols)), Random(options.seed, 3 * options.stream + k, Role::loha));
  };
  draw(update.w1_a.value, rank, 0), draw(update.w2_a.value, rank, 1), draw(update.w1_b.value, in, 2);
  update.scale = static_cast<S>(options.alpha / static_cast<double>(rank));
  return update;
}

/// LoHa as files know it. Rank dropout and module dropout are not applied.
Method loha_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/loha.inl>
#endif
