#pragma once

/// LoRA-XS: W X + s B R (A X) with A = Σ Vᵀ and B = U of the weight's leading singular directions, frozen, and R [r, r] trained (Bałazy et
/// al. 2024, "LoRA-XS: Low-rank adaptation with extremely small number of parameters").

#include <cstdint>
#include <memory>

#include <lowrank/core/random.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/lora_scale.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The numbers of one LoRA-XS update. A method (update/method.hpp).
template <class S = float>
struct LoraXsWeights {
  using Scalar = S;

  std::shared_ptr<const Weight<S>> a, b;  ///< A [r, in], B [out, r], frozen
  Parameter<S> r;                         ///< R [r, r]
  S scale = S(1);
  S dropout = S(0);
  std::uint64_t dropout_seed = 0, dropout_stream = 0;

  Plan<S> plan(const PlanRequest<S>& request) {
    Plan<S> plan;
    plan.a = {a->data(), a->rows(), a->cols()};
    plan.b = {b->data(), b->rows(), b->cols()};
    plan.middle = factor(r);
    plan.scale = scale;
    plan.mask = request.next_mask(static_cast<double>(dropout), dropout_seed, dropout_stream);
    plan.trains_middle = r.needs_grad();
    return plan;
  }
  void add_gradients(const PlanGradients<S>& gradients) { add_gradient(r, gradients.middle); }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(r);
  }
  void set_trainable(bool trainable) { r.trainable = trainable; }
};

/// A fresh update from A = Σ Vᵀ [r, in] and B = U [out, r], for instance of randomized_svd of the weight; R from N(0, 10⁻¹⁰), as the
/// authors begin. Throws ShapeError.
template <class S = float>
LoraXsWeights<S> make_lora_xs(Weight<S> a, Weight<S> b, double alpha, std::uint64_t seed = 0, std::uint64_t stream = 0) {
  check<ShapeError>(a.rows() == b.cols() && a.rows() > 1, "lora_xs", "A is [", a.rows(), ", ", a.cols(), "], B is [", b.rows(), ", ",
                    b.cols(), "]; A must be [rank, in] and B [out, rank] with a rank of at least 2");
  LoraXsWeights<S> update;
  update.r.name = "lora_R.weight";
  update.r.value.resize(a.rows(), a.rows());
  fill_normal(update.r.value, 1e-5, Random(seed, stream));
  update.scale = static_cast<S>(lora_scale(a.rows(), alpha, false));
  update.a = std::make_shared<const Weight<S>>(std::move(a));
  update.b = std::make_shared<const Weight<S>>(std::move(b));
  return update;
}

}  // namespace lowrank::inline LOWRANK_ABI
