#pragma once

/// What one does with all parts of a model at once: collect its parameters, switch dropout, choose how it computes.

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/autograd/visit.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
template <class Model>
struct ScalarOf {
  using type = float;
};
template <class Model>
requires requires { typename Model::Scalar; }
struct ScalarOf<Model> {
  using type = typename Model::Scalar;
};
}  // namespace detail

/// The trainable parameters of a layer or model, by their paths and each once, with gradients allocated: what an optimizer takes.
///
/// A model lists its parts in `visit_parameters(visitor)` (autograd/visit.hpp); its numbers are float unless it has `using Scalar =
/// double`.
template <class Model>
auto parameters(Model& model) {
  using S = typename detail::ScalarOf<Model>::type;
  std::vector<ParameterRef<S>> references;
  walk(model, [&](const std::string& path, auto& parameter) {
    static_assert(std::is_same_v<typename std::remove_reference_t<decltype(parameter)>::Scalar, S>,
                  "parameters(model): the model's parameters are not of its scalar; give the model `using Scalar = double` (or float)");
    if (!parameter.needs_grad()) return;
    ParameterRef<S> reference(path, parameter);
    const auto is_known = [&](const ParameterRef<S>& known) { return known.is_same(reference); };
    if (std::ranges::none_of(references, is_known)) references.push_back(std::move(reference));
  });
  return references;
}

/// Number of parameters of a model that are trainable.
template <class Model>
Index trainable_parameters(Model& model) {
  Index count = 0;
  walk(model, [&](const std::string&, auto& parameter) { count += parameter.needs_grad() ? parameter.size() : 0; });
  return count;
}

namespace detail {
template <class Model>
void set_dropout(Model& model, bool active) {
  walk(model, Ignore{}, Ignore{}, [&](const std::string&, auto& dropout) { dropout.active = active; });
}
}  // namespace detail

/// Switches a model's dropout on, as it is at first; it acts where a tape records.
template <class Model>
void train(Model& model) {
  detail::set_dropout(model, true);
}
/// Switches a model's dropout off, so that a recorded pass computes what serving does, gradients included.
template <class Model>
void eval(Model& model) {
  detail::set_dropout(model, false);
}

/// Lets all linear layers of a model compute in one way.
template <class Model>
void set_compute(Model& model, Compute compute) {
  walk(model, detail::Ignore{}, [&](const std::string&, auto& layer) {
    if constexpr (requires { layer.set_compute(compute); }) layer.set_compute(compute);
  });
}

}  // namespace lowrank::inline LOWRANK_ABI
