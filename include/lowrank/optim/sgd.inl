#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void SgdRule::check_options(const Options& options) {
  detail::check_rate("sgd", options.learning_rate, options.weight_decay);
  check<ValueError>(is_finite(options.momentum) && options.momentum >= 0 && options.momentum < 1, "sgd", "momentum = ", options.momentum,
                    " must lie in [0, 1)");
}

#if defined(LOWRANK_COMPILING)
template class Optimizer<SgdRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
