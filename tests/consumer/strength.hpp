#pragma once

// A method of a stranger's own, in a file of its own: docs/your_own_method.md.

#include <lowrank/update/any_update.hpp>
#include <lowrank/update/registry.hpp>

namespace mine {

using namespace lowrank;

/// W X + t s B (A X), with the strength t of the whole update trained, too.
template <class S = float>
struct Strength {
  using Scalar = S;

  LoraWeights<S> lora;
  Parameter<S> t = {};      // [1, 1]
  Weight<S> diagonal = {};  // of M; lives as long as the plan is used

  Plan<S> plan(const PlanRequest<S>& request) {
    Plan<S> plan = lora.plan(request);
    diagonal.setConstant(lora.rank(), 1, t.value(0, 0));
    plan.middle = {diagonal.data(), diagonal.rows(), 1};  // M = t · 1
    plan.trains_middle = t.needs_grad();
    return plan;
  }
  void add_gradients(const PlanGradients<S>& gradients) {
    lora.add_gradients(gradients);
    if (t.needs_grad() && gradients.middle.size() > 0) t.gradient()(0, 0) += gradients.middle.sum();
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    lora.visit_parameters(visitor);
    visitor(t);
  }
  void set_trainable(bool trainable) {
    lora.set_trainable(trainable);
    t.trainable = trainable;
  }
};

/// A fresh update of a layer, or room for the numbers of a file.
inline AnyUpdate new_strength(const UpdateSite& site, const MethodFields& fields, const SharedTensors&) {
  const Index rank = site.size("lora_A.weight", 0, count_field(fields, "r", 8));
  const auto alpha = field<double>(fields, "lora_alpha", 8);
  Strength<float> update{
      make_lora<float>(site.layer.in, site.layer.out, {.rank = rank, .alpha = alpha, .seed = site.seed, .stream = site.stream})};
  update.t.name = "strength";
  update.t.value.setOnes(1, 1);
  return update;
}

/// The method as files know it.
inline Method strength_method() {
  static constexpr MethodTensor tensors[] = {{"lora_A.weight"}, {"lora_B.weight", Outputs::rows}, {"strength"}};
  const auto fields = [] { return std::vector<Field>{{"r", 8.0}, {"lora_alpha", 8.0}}; };
  return {
      .peft_type = "STRENGTH", .name = "strength", .flag = "", .fields = fields, .tensors = tensors, .required = 3, .make = new_strength};
}

}  // namespace mine
