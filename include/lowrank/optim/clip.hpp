#pragma once

#include <cmath>
#include <numeric>
#include <vector>

#include <lowrank/autograd/parameter.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// ‖g‖₂ over all gradients together, summed in double in a fixed order.
template <class S>
double gradient_norm(const std::vector<ParameterRef<S>>& parameters) {
  const PhaseScope scope(Phase::optimizer);
  std::vector<double> parts(parameters.size(), 0.0);
  parallel_for(static_cast<Index>(parameters.size()), [&](Index i) {
    double& part = parts[static_cast<std::size_t>(i)];
    for (const S g : parameters[static_cast<std::size_t>(i)].grad()) part += static_cast<double>(g) * static_cast<double>(g);
  });
  return std::sqrt(std::accumulate(parts.begin(), parts.end(), 0.0));
}

/// Scales all gradients by max_norm / (‖g‖ + 1e-6) if that is below 1, as torch.nn.utils.clip_grad_norm_; returns ‖g‖ before.
///
/// A norm that is not finite changes nothing: skip that step. Throws ValueError unless max_norm > 0.
template <class S>
double clip_gradient_norm(const std::vector<ParameterRef<S>>& parameters, double max_norm) {
  check<ValueError>(is_finite(max_norm) && max_norm > 0, "clip_gradient_norm", "max_norm = ", max_norm, " must be positive");
  const double norm = gradient_norm(parameters), scale = max_norm / (norm + 1e-6);
  if (!is_finite(norm) || scale >= 1) return norm;
  const PhaseScope scope(Phase::optimizer);
  parallel_for(static_cast<Index>(parameters.size()), [&](Index i) {
    for (S& g : parameters[static_cast<std::size_t>(i)].grad()) g *= static_cast<S>(scale);
  });
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
