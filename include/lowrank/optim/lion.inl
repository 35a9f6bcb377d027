#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void LionRule::check_options(const Options& options) {
  detail::check_rate("lion", options.learning_rate, options.weight_decay);
  check<ValueError>(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1, "lion", "beta1 = ", options.beta1,
                    ", beta2 = ", options.beta2, " must lie in [0, 1)");
}

#if defined(LOWRANK_COMPILING)
template class Optimizer<LionRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
