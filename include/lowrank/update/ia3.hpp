#pragma once

/// IA³: l ∘ (W X + b), or W (l ∘ X) + b for feed-forward layers, l trained (Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is
/// better and cheaper than in-context learning").

#include <memory>
#include <utility>

#include <lowrank/core/shape.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// X ↦ l ∘ X by rows.
template <class S>
class DiagonalMap : public InputMap<S> {
 public:
  explicit DiagonalMap(Column<S> l) : l_(std::move(l)) {}
  Activation<S> operator()(const ActivationView<S>& x) const override { return l_.asDiagonal() * x; }
  Activation<S> transposed(const ActivationView<S>& g) const override { return l_.asDiagonal() * g; }

 private:
  Column<S> l_;
};

/// The numbers of one IA³ update. A method (update/method.hpp).
template <class S = float>
struct Ia3Weights {
  using Scalar = S;

  Parameter<S> l;  ///< [out, 1], or [1, in] where it scales the input
  bool is_feedforward = false;

  Plan<S> plan(const PlanRequest<S>&) & {
    const Column<S> factors = l.value.reshaped();
    Plan<S> plan;
    if (is_feedforward) {
      plan.input_map = std::make_shared<const DiagonalMap<S>>(factors);
      plan.trains_input_map = l.needs_grad();
    } else {
      plan.gain = {factors, l.value.data(), {}, true};
      plan.trains_gain = l.needs_grad();
    }
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.mapped.size() > 0) add_gradient(l, Column<S>(gradients.mapped.cwiseProduct(gradients.x).rowwise().sum()));
    add_gradient(l, gradients.gain);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(l);
  }
  void set_trainable(bool trainable) { l.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: l = 1, so that the layer begins as its base. Throws ShapeError.
template <class S = float>
Ia3Weights<S> make_ia3(Index in, Index out, bool is_feedforward = false) {
  element_count("ia3", "the weight [out, in]", {out, in});
  Ia3Weights<S> update;
  update.is_feedforward = is_feedforward;
  update.l.name = "ia3_l";
  if (is_feedforward)
    update.l.value.setOnes(1, in);
  else
    update.l.value.setOnes(out, 1);
  return update;
}

/// IA³ as files know it: one tensor a module. Of `feedforward_modules`, a list, a path ends in one; files tell by the tensor's shape.
Method ia3_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/ia3.inl>
#endif
