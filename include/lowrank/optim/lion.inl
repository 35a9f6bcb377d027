#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void LionRule::check_options(const Options& options) {
  detail::check_rate("lion", options.learning_rate, options.weight_decay);
  detail::check_betas("lion", options.beta1, options.beta2);
}

#if defined(LOWRANK_COMPILING)
template class Optimizer<LionRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
