#pragma once

#include <cmath>
#include <vector>

#include <lowrank/autograd/parameter.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// ‖g‖₂ over all gradients together, summed in double in a fixed order.
template <class S>
double gradient_norm(const std::vector<ParameterRef<S>>& parameters) {
  double sum = 0;
  for (const auto& parameter : parameters) {
    double part = 0;
    for (const S g : parameter.grad()) part += static_cast<double>(g) * static_cast<double>(g);
    sum += part;
  }
  return std::sqrt(sum);
}

/// Scales all gradients by max_norm / (‖g‖ + 1e-6) if that is below 1, as torch.nn.utils.clip_grad_norm_; returns ‖g‖ before.
///
/// A norm that is not finite changes nothing: skip that step. Throws ValueError unless max_norm > 0.
template <class S>
double clip_gradient_norm(const std::vector<ParameterRef<S>>& parameters, double max_norm) {
  check<ValueError>(is_finite(max_norm) && max_norm > 0, "clip_gradient_norm", "max_norm = ", max_norm, " must be positive");
  const double norm = gradient_norm(parameters), scale = max_norm / (norm + 1e-6);
  if (!is_finite(norm) || scale >= 1) return norm;
  for (const auto& parameter : parameters) {
    for (S& g : parameter.grad()) g *= static_cast<S>(scale);
  }
  return norm;
}

#if defined(LOWRANK_COMPILED)
extern template double gradient_norm(const std::vector<ParameterRef<float>>&);
extern template double clip_gradient_norm(const std::vector<ParameterRef<float>>&, double);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/clip.inl>
#endif
