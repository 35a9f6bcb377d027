#pragma once

/// IA³: l ∘ (W X + b), or W (l ∘ X) + b for feed-forward layers, l trained (Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is
/// better and cheaper than in-context learning").

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <lowrank/update/any_update.hpp>
#include <lowrank/update/method.hpp>
#include <lowrank/update/entry.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// X ↦ l ∘ X by rows.
template <class S>
class DiagonalMap : public InputMap<S> {
 public:
  explicit DiagonalMap(Vector<S> l) : l_(std::move(l)) {}
  Activation<S> operator()(const ActivationView<S>& x) const override { return l_.asDiagonal() * x; }
  Activation<S> transposed(const ActivationView<S>& g) const override { return l_.asDiagonal() * g; }

 private:
  Vector<S> l_;
};

/// The numbers of one IA³ update. A method (update/method.hpp).
template <class S = float>
struct Ia3Weights {
  using Scalar = S;

  Parameter<S> l;  ///< [out, 1], or [1, in] where it scales the input
  bool is_feedforward = false;

  Plan<S> plan(const PlanRequest<S>&) {
    const Vector<S> factors = l.value.reshaped();
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
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.mapped.size() > 0) add_gradient(l, Vector<S>(gradients.mapped.cwiseProduct(gradients.x).rowwise().sum()));
    add_gradient(l, gradients.gain);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(l);
  }
  void set_trainable(bool trainable) { l.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: l = 1, so that the layer begins as its base.
template <class S = float>
Ia3Weights<S> make_ia3(Index in, Index out, bool is_feedforward = false) {
  Ia3Weights<S> update;
  update.is_feedforward = is_feedforward;
  update.l.name = "ia3_l";
  if (is_feedforward)
    update.l.value.setOnes(1, in);
  else
    update.l.value.setOnes(out, 1);
  return update;
}

/// IA³ as files know it: one tensor a module. `feedforward_modules` are names, of which a path ends in one.
inline Method ia3_method() {
  static constexpr std::string_view names[] = {"ia3_l"};
  const auto fields = [] {
    return std::vector<Field>{{"exclude_modules"}, {"fan_in_fan_out", false}, {"feedforward_modules"}, {"init_ia3_weights", true, false},
                              {"modules_to_save"}, {"target_modules"}};
  };
  const auto make = [](const UpdateSite& site, const MethodFields& given, const SharedTensors&) -> AnyUpdate {
    const auto ends = [&](const std::string& name) { return std::string_view(site.path).ends_with(name); };
    auto names_of = field<std::vector<std::string>>(given, "feedforward_modules", {});
    if (const auto one = field<std::string>(given, "feedforward_modules", ""); !one.empty()) names_of.push_back(one);
    return make_ia3<float>(site.layer.in, site.layer.out, std::any_of(names_of.begin(), names_of.end(), ends));
  };
  return {"IA3", "ia3", "", fields, names, 1, {}, make};
}

}  // namespace lowrank::inline LOWRANK_ABI
