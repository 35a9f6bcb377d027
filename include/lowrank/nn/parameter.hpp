#pragma once

#include <string>
#include <utility>
#include <vector>

#include <lowrank/autograd/parameter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The trainable parameters of a layer or model, with gradients allocated: what an optimizer takes.
///
/// A layer lists its parameters in `visit_parameters(visitor)`, visitor(Parameter&). References stay valid while the layer stays in place.
template <class Layer>
auto parameters(Layer& layer) {
  std::vector<ParameterRef<typename Layer::Scalar>> references;
  layer.visit_parameters([&](auto& parameter) {
    if (parameter.needs_grad()) references.push_back(reference(parameter));
  });
  return references;
}

/// Number of parameters of a layer that are trainable.
template <class Layer>
Index trainable_parameters(Layer& layer) {
  Index count = 0;
  layer.visit_parameters([&](auto& parameter) { count += parameter.needs_grad() ? parameter.size() : 0; });
  return count;
}

}  // namespace lowrank::inline LOWRANK_ABI
