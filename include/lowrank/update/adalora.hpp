#pragma once

/// AdaLoRA: W X + s B (E ∘ (A X)), a singular value decomposition whose least triplets are cut while it trains (Zhang et al. 2023,
/// "Adaptive budget allocation for parameter-efficient fine-tuning").

#include <cmath>
#include <cstdint>

#include <lowrank/core/shape.hpp>
#include <lowrank/product/dense.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A fresh AdaLoRA update.
struct AdaloraOptions {
  Index rank = 12;       ///< "init_r", which the scale keeps when triplets are cut
  Index kept = Dynamic;  ///< triplets that are left; Dynamic: all
  double alpha = 8;      ///< s = alpha / (init_r + 1e-5)
  double dropout = 0;
  double orthogonality = 0.5;  ///< weight of the loss's own term ("orth_reg_weight")
  std::uint64_t seed = 0, stream = 0;
};

/// The numbers of one AdaLoRA update. A method (update/method.hpp).
template <class S = float>
struct AdaloraWeights {
  using Scalar = S;

  Parameter<S> a, b, e;  ///< A [r, in], B [out, r], E [r, 1]
  S scale = S(1);
  InputDropout<S> dropout = {};
  S orthogonality = S(0);

  Plan<S> plan(const PlanRequest<S>& request) & {
    Plan<S> plan;
    plan.a = factor(a), plan.b = factor(b), plan.middle = factor(e);
    plan.scale = scale;
    plan.mask = request.next_mask(dropout);
    plan.trains_a = a.needs_grad(), plan.trains_b = b.needs_grad(), plan.trains_middle = e.needs_grad();
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) {
    add_gradient(a, gradients.a);
    add_gradient(b, gradients.b);
    add_gradient(e, gradients.middle);
  }
  /// share · w (‖A Aᵀ − 1‖ + ‖Bᵀ B − 1‖) / 2 with Frobenius' norm, w the orthogonality; adds its gradient. With P = A Aᵀ − 1 that of A is
  /// share · w P A / ‖P‖.
  S add_penalty(S share) {
    const S factor = share * orthogonality;
    if (factor == S(0) || e.size() == 0) return S(0);
    Activation<S> p = times_transposed<S>(a.value, a.value), q = transposed_times<S>(b.value, b.value);
    p.diagonal().array() -= S(1), q.diagonal().array() -= S(1);
    const S p_norm = p.norm(), q_norm = q.norm();
    if (a.needs_grad() && p_norm > 0) a.gradient() += factor / p_norm * times<S>(p, a.value);
    if (b.needs_grad() && q_norm > 0) b.gradient() += factor / q_norm * times<S>(b.value, q);
    return factor * (p_norm + q_norm) / S(2);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(a);
    visitor(b);
    visitor(e);
    visit_dropout(visitor, dropout);
  }
  void set_trainable(bool trainable) { a.trainable = b.trainable = e.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: A and B from N(0, 0.02²), E = 0, so that the layer begins as its base. Throws ValueError,
/// ShapeError.
template <class S = float>
AdaloraWeights<S> make_adalora(Index in, Index out, const AdaloraOptions& options = {}) {
  const Index rank = options.kept == Dynamic ? options.rank : options.kept;
  check<ValueError>(options.rank > 0 && rank >= 0 && rank <= options.rank, "adalora", "rank = ", options.rank, ", of which ", rank,
                    " are kept; the rank must be at least 1, and no more is kept than was there");
  element_count("adalora", "A [rank, in]", {rank, in}), element_count("adalora", "B [out, rank]", {out, rank});
  AdaloraWeights<S> update;
  update.a.name = "lora_A", update.b.name = "lora_B", update.e.name = "lora_E";
  update.a.value.resize(rank, in);
  update.b.value.resize(out, rank);
  fill_normal(update.a.value, 0.02, Random(options.seed, 2 * options.stream, Role::adalora));
  fill_normal(update.b.value, 0.02, Random(options.seed, 2 * options.stream + 1, Role::adalora));
  update.e.value.setZero(rank, 1);
  const float divisor = static_cast<float>(options.rank) + 1e-5f;
  update.scale = static_cast<S>((options.alpha > 0 ? options.alpha : static_cast<double>(options.rank)) / static_cast<double>(divisor));
  update.dropout = InputDropout<S>::of_layer(options.dropout, options.seed, options.stream);
  update.orthogonality = static_cast<S>(options.orthogonality);
  return update;
}

/// AdaLoRA as files know it. A module whose rank was cut has what is left of it by `rank_pattern`; the scale stays that of init_r.
Method adalora_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/adalora.inl>
#endif
