#pragma once

/// LoRA-XS: W X + s B R (A X) with A = Σ Vᵀ and B = U of the weight's leading singular directions, frozen, and R [r, r] trained (Bałazy et
/// al. 2024, "LoRA-XS: Low-rank adaptation with extremely small number of parameters").

#include <cstdint>
#include <utility>

#include <lowrank/update/entry.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/lora_scale.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The numbers of one LoRA-XS update. A method (update/method.hpp).
template <class S = float>
struct LoraXsWeights {
  using Scalar = S;

  Parameter<S> a, b;  ///< A [r, in], B [out, r], frozen
  Parameter<S> r;     ///< R [r, r]
  S scale = S(1);
  InputDropout<S> dropout = {};

  Plan<S> plan(const PlanRequest<S>& request) & {
    Plan<S> plan;
    plan.a = factor(a), plan.b = factor(b), plan.middle = factor(r);
    plan.scale = scale;
    plan.mask = request.next_mask(dropout);
    plan.trains_middle = r.needs_grad();
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) { add_gradient(r, gradients.middle); }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(a);
    visitor(b);
    visitor(r);
    visit_dropout(visitor, dropout);
  }
  void set_trainable(bool trainable) { r.trainable = trainable; }
};

/// A fresh LoRA-XS update.
struct LoraXsOptions {
  double alpha = 8;  ///< s = alpha / r
  bool use_rslora = false;
  double dropout = 0;
  std::uint64_t seed = 0, stream = 0;
};

/// A fresh update from A = Σ Vᵀ [r, in] and B = U [out, r], for instance of randomized_svd of the weight; R from N(0, 10⁻¹⁰), as the
/// authors begin. Throws ShapeError.
template <class S = float>
LoraXsWeights<S> make_lora_xs(Weight<S> a, Weight<S> b, const LoraXsOptions& options = {}) {
  check<ShapeError>(a.rows() == b.cols() && a.rows() > 1, "lora_xs", "A is [", a.rows(), ", ", a.cols(), "], B is [", b.rows(), ", ",
                    b.cols(), "]; A must be [rank, in] and B [out, rank] with a rank of at least 2");
  LoraXsWeights<S> update;
  update.r.name = "_lora_latent_mapping.weight";
  update.r.value.resize(a.rows(), a.rows());
  fill_normal(update.r.value, 1e-5, Random(options.seed, options.stream, Role::lora_xs));
  update.scale = static_cast<S>(lora_scale(a.rows(), options.alpha, options.use_rslora));
  update.dropout = InputDropout<S>::of_layer(options.dropout, options.seed, options.stream);
  update.a.name = "lora_A.weight", update.b.name = "lora_B.weight";
  update.a.value = std::move(a), update.b.value = std::move(b);
  update.a.trainable = update.b.trainable = false;
  return update;
}

/// LoRA-XS as files know it. PEFT has none: type LORA_XS, LoRA's keys and the authors' tensors, whose own files say LORA and are read, too.
/// For PEFT and llama.cpp write to_lora() of the set (update/set.hpp), which is exact.
Method lora_xs_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/lora_xs.inl>
#endif
