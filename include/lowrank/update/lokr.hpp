#pragma once

/// LoKr: W X + s (W₁ ⊗ W₂) X, a Kronecker product, each of whose factors is whole or of low rank itself (Yeh et al. 2023, "Navigating
/// text-to-image customization: From LyCORIS fine-tuning to model evaluation").

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include <lowrank/core/random.hpp>
#include <lowrank/core/shape.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W₁ ⊗ W₂ as a source: element (o₁ k + o₂, i₁ n + i₂) is W₁(o₁, i₁) W₂(o₂, i₂), with W₂ [k, n].
template <class S>
class KroneckerChange {
 public:
  KroneckerChange(Weight<S> left, Weight<S> right) : left_(std::move(left)), right_(std::move(right)) {}

  Index rows() const { return left_.rows() * right_.rows(); }
  Index cols() const { return left_.cols() * right_.cols(); }
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    const Index k = right_.rows(), n = right_.cols();
    for (Index i = 0; i < count; ++i)
      for (Index j = 0; j < length; ++j)
        out[i * stride + j] =
            static_cast<Scalar>(left_((row + i) / k, (col + j) / n)) * static_cast<Scalar>(right_((row + i) % k, (col + j) % n));
  }

 private:
  Weight<S> left_, right_;
};

/// The factors' sizes: W₁ [l, m] and W₂ [k, n] make [l k, m n]; each is whole, or of rank r.
struct LokrShape {
  Index l = 1, m = 1, k = 1, n = 1;
  bool is_whole_1 = true, is_whole_2 = true;
};

/// What PEFT chooses for a weight [out, in]: both sizes as two numbers with a product as near to a square as `factor` allows (−1: any), the
/// smaller first; W₂, and W₁ where `decompose_both`, of rank r where that is less than half of its larger side. Throws ValueError.
LokrShape lokr_shape(Index in, Index out, Index rank, Index factor = -1, bool decompose_both = false);

/// One factor of the product: whole, or A B.
template <class S>
struct LokrFactor {
  Parameter<S> whole, a, b;  ///< [rows, cols]; or [rows, r], [r, cols]

  Weight<S> value() { return whole.empty() ? Weight<S>(times<S>(a.value, b.value)) : whole.value; }
  bool needs_grad() const { return whole.needs_grad() || a.needs_grad() || b.needs_grad(); }
  /// Adds the gradient of the factor to that of its numbers.
  void add(const Activation<S>& d) {
    if (whole.needs_grad()) whole.gradient() += d;
    add_product_gradients<S>(a, b, d);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    for (Parameter<S>* parameter : {&whole, &a, &b})
      if (!parameter->empty()) visitor(*parameter);
  }
  void set_trainable(bool trainable) { whole.trainable = a.trainable = b.trainable = trainable; }
};

/// A fresh LoKr update.
struct LokrOptions {
  Index rank = 8;
  double alpha = 8;          ///< s = alpha / r, also where both factors are whole
  bool begins_at_w1 = true;  ///< W₁ begins as zero; else W₂ does, as in LyCORIS
  std::uint64_t seed = 0, stream = 0;
};

/// The numbers of one LoKr update. A method (update/method.hpp).
template <class S = float>
struct LokrWeights {
  using Scalar = S;

  LokrFactor<S> w1, w2;
  S scale = S(1);

  Plan<S> plan(const PlanRequest<S>&) & {
    const auto change = std::make_shared<const KroneckerChange<S>>(w1.value(), w2.value());
    Plan<S> plan;
    plan.delta = WeightView(*change);
    plan.scale = scale;
    plan.trains_delta = w1.needs_grad() || w2.needs_grad();
    plan.held = change;
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  /// dW₁(o₁, i₁) = ⟨dΔ's block, W₂⟩, dW₂ = Σ W₁(o₁, i₁) · that block.
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.delta.size() == 0) return;
    const Weight<S> left = w1.value(), right = w2.value();
    Activation<S> d1(left.rows(), left.cols()), d2 = Activation<S>::Zero(right.rows(), right.cols());
    for (Index o = 0; o < left.rows(); ++o)
      for (Index i = 0; i < left.cols(); ++i) {
        const auto block = gradients.delta.block(o * right.rows(), i * right.cols(), right.rows(), right.cols());
        d1(o, i) = block.cwiseProduct(right).sum();
        d2 += left(o, i) * block;
      }
    w1.add(d1);
    w2.add(d2);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    w1.visit_parameters(visitor);
    w2.visit_parameters(visitor);
  }
  void set_trainable(bool trainable) {
    w1.set_trainable(trainable);
    w2.set_trainable(trainable);
  }
};

/// A fresh update: one of its numbers' matrices is zero, so that the layer begins as its base. Throws ValueError,
/// ShapeError.
template <class S = float>
LokrWeights<S> make_lokr(const LokrShape& shape, const LokrOptions& options = {}) {
  const Index rank = options.rank;
  check<ValueError>(rank > 0, "lokr", "rank = ", rank, "; it must be at least 1");
  for (const Index size : {shape.l, shape.k, shape.m, shape.n}) element_count("lokr", "a factor [size, rank]", {size, rank});
  element_count("lokr", "the update [l, k, m, n]", {shape.l, shape.k, shape.m, shape.n});
  LokrWeights<S> update;
  std::uint64_t k = 4 * options.stream;
  const auto fill = [&](Parameter<S>& p, const char* name, Index rows, Index cols, bool is_zero) {
    p.name = name;
    p.value.setZero(rows, cols);
    if (!is_zero) fill_uniform(p.value, 1.0 / std::sqrt(static_cast<double>(cols)), Random(options.seed, k, Role::lokr));
    ++k;
  };
  const bool first = options.begins_at_w1;
  if (shape.is_whole_1)
    fill(update.w1.whole, "lokr_w1", shape.l, shape.m, first);
  else
    fill(update.w1.a, "lokr_w1_a", shape.l, rank, first), fill(update.w1.b, "lokr_w1_b", rank, shape.m, false);
  if (shape.is_whole_2)
    fill(update.w2.whole, "lokr_w2", shape.k, shape.n, !first);
  else
    fill(update.w2.a, "lokr_w2_a", shape.k, rank, false), fill(update.w2.b, "lokr_w2_b", rank, shape.n, !first);
  update.scale = static_cast<S>(options.alpha / static_cast<double>(rank));
  return update;
}

/// LoKr as files know it: the tensors that are there say what is whole. Rank dropout and module dropout are not applied.
Method lokr_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/lokr.inl>
#endif
