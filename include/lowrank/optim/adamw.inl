#pragma once

#include <span>

#include <lowrank/kernels/target/dispatch.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void AdamWRule::check_options(const Options& options) {
  detail::check_rate("adamw", options.learning_rate, options.weight_decay);
  detail::check_betas("adamw", options.beta1, options.beta2);
  check<ValueError>(is_finite(options.epsilon) && options.epsilon >= 0, "adamw", "epsilon = ", options.epsilon, " must be 0 or more");
}

template <>
LOWRANK_INLINE void AdamWRule::advance<float>(const Options& options, Index step, std::span<float> value, std::span<const float> grad,
                                              std::span<float> first, std::span<float> second) {
  const auto [decay, rate, correction, beta2, epsilon, toward1, toward2] = factors<float>(options, step);
  const kernels::AdamWStep shared{decay, rate, correction, beta2, epsilon, toward1, toward2};
  kernels::current_target().elementwise.adamw(shared, grad.data(), static_cast<Index>(value.size()), value.data(), first.data(),
                                              second.data());
}

#if defined(LOWRANK_COMPILING)
template class Optimizer<AdamWRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
