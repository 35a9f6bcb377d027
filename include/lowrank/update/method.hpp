#pragma once

/// What a method of adaptation must have (LoRA, VeRA, OFT, one of yours), and updates whose method is known at run time only.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/autograd/visit.hpp>
#include <lowrank/core/random.hpp>
#include <lowrank/error.hpp>
#include <lowrank/product/dense.hpp>
#include <lowrank/product/plan.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A frozen linear layer as a method sees it: W [out, in] where it lies, b, and how it computes.
template <class S>
struct LayerView {
  WeightView weight = {};  ///< without rows where the weight cannot be read
  Index out = 0, in = 0;
  FactorView<S> bias = {};
  Compute compute = Compute::fp32;
};

/// Dropout on the input of an update alone, while a tape records.
template <class S>
struct InputDropout {
  S probability = S(0);
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  ///< of the next mask; each recorded pass takes one. Part of a run's state, like seed.
  bool active = true;        ///< train() and eval() of nn/parameter.hpp set it

  /// That of a model's layer with that number, so that the masks of equal layers differ. Throws ValueError.
  static InputDropout of_layer(double probability, std::uint64_t seed, std::uint64_t layer) {
    check<ValueError>(is_finite(probability) && probability >= 0 && probability < 1, "dropout", "dropout = ", probability,
                      "; it must lie in [0, 1)");
    return {static_cast<S>(probability), seed_of(seed, Role::mask) ^ (layer * 0x9E3779B97F4A7C15u)};
  }
};

/// What a plan is made for: one pass of one layer.
template <class S>
struct PlanRequest {
  LayerView<S> layer = {};
  bool is_recorded = false;                                ///< on a tape, so that gradients follow and dropout acts
  std::function<std::uint64_t(std::uint64_t&)> draw = {};  ///< the next number of a counter of random streams

  /// The next mask, for training; none otherwise.
  Mask next_mask(InputDropout<S>& dropout) const {
    if (dropout.probability == 0 || !dropout.active || !is_recorded) return {};
    return {static_cast<double>(dropout.probability), {dropout.seed, draw ? draw(dropout.stream) : dropout.stream++}};
  }
};

namespace detail {
struct VisitNothing {  // a named type: nvcc 13 rejects a lambda in the concept
  void operator()(const auto&) const {}
};
struct Watch {
  std::vector<Witness>& witnesses;
  void operator()(auto& parameter) const { witnesses.emplace_back(parameter); }
};
// Witnesses of all parameters of a method or a layer; a bias that is empty speaks for a layer without any.
template <class Watched>
void watch(Watched& watched, std::vector<Witness>& witnesses) {
  const std::size_t before = witnesses.size();
  if (before == 0) witnesses.reserve(4);
  watched.visit_parameters(Watch{witnesses});
  if constexpr (requires { Witness(watched.bias()); })
    if (witnesses.size() == before) witnesses.emplace_back(watched.bias());
}
}  // namespace detail

/// A method: the numbers of one layer's update. What it must have:
///
/// | requirement | meaning |
/// |---|---|
/// | `Scalar` | float or double |
/// | `plan(request)` | what it adds to the layer's product in this pass, as a Plan<Scalar>; it computes no product with X itself |
/// | `add_gradients(gradients)` | from the gradients of the plan (PlanGradients) to those of its parameters, added |
/// | `visit_parameters(visitor)` | visitor(Parameter&) for each of its parameters, visit_dropout(visitor, dropout) if it has an
/// InputDropout |
///
/// What files need beside it stands in update/registry.hpp.
template <class Candidate>
concept UpdateMethod = requires(Candidate& update, const PlanRequest<typename Candidate::Scalar>& request,
                                const PlanGradients<typename Candidate::Scalar>& gradients) {
  { update.plan(request) } -> std::same_as<Plan<typename Candidate::Scalar>>;
  update.add_gradients(gradients);
  update.visit_parameters(detail::VisitNothing{});
};

/// A parameter as a plan's factor.
template <class S, int Rows, int Cols>
FactorView<S> factor(Parameter<S, Rows, Cols>& parameter) {
  return {parameter.value.data(), parameter.rows(), parameter.cols(), nullptr, &parameter.device};
}

/// Adds a plan's gradient to a parameter's, where it is trained and there is one.
template <class S, int Rows, int Cols, class Gradient>
void add_gradient(Parameter<S, Rows, Cols>& parameter, const Gradient& gradient) {
  if (parameter.needs_grad() && gradient.size() > 0)
    parameter.gradient() += Eigen::Map<const Weight<S, Rows, Cols>>(gradient.data(), parameter.rows(), parameter.cols());
}

/// Adds the gradients of the factors of a product A B from that of the product: dA = D Bᵀ, dB = Aᵀ D.
template <class S>
void add_product_gradients(Parameter<S>& a, Parameter<S>& b, const ActivationView<S>& d) {
  if (a.needs_grad()) a.gradient() += times_transposed<S>(d, b.value);
  if (b.needs_grad()) b.gradient() += transposed_times<S>(a.value, d);
}

/// An update of any method, where it is; null: none. What layers are handed, so that a swap of adapters is a change of pointers.
template <class S>
class BasicUpdateRef {
 public:
  BasicUpdateRef() = default;
  BasicUpdateRef(std::nullptr_t) {}
  template <UpdateMethod Method>
  requires std::is_same_v<typename Method::Scalar, S> BasicUpdateRef(Method* update) : update_(update) {
    if (update == nullptr) return;
    static constexpr Calls calls{
        [](void* u, const PlanRequest<S>& request) { return static_cast<Method*>(u)->plan(request); },
        [](void* u, const PlanGradients<S>& gradients) { static_cast<Method*>(u)->add_gradients(gradients); },
        [](void* u, std::vector<detail::Witness>& witnesses) { detail::watch(*static_cast<Method*>(u), witnesses); }};
    calls_ = &calls;
  }

  explicit operator bool() const { return update_ != nullptr; }
  bool operator==(const BasicUpdateRef& other) const { return update_ == other.update_; }
  Plan<S> plan(const PlanRequest<S>& request) const { return calls_->plan(update_, request); }
  void add_gradients(const PlanGradients<S>& gradients) const { calls_->add_gradients(update_, gradients); }
  /// Witnesses of its parameters.
  void watch(std::vector<detail::Witness>& witnesses) const { calls_->watch(update_, witnesses); }

 private:
  struct Calls {
    Plan<S> (*plan)(void*, const PlanRequest<S>&);
    void (*add_gradients)(void*, const PlanGradients<S>&);
    void (*watch)(void*, std::vector<detail::Witness>&);
  };
  void* update_ = nullptr;
  const Calls* calls_ = nullptr;
};
/// The same in float.
using UpdateRef = BasicUpdateRef<float>;

}  // namespace lowrank::inline LOWRANK_ABI
