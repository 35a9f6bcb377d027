#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void detail::check_rate(const char* rule, double learning_rate, double weight_decay) {
  check<ValueError>(std::isfinite(learning_rate) && learning_rate >= 0, rule, "learning_rate = ", learning_rate, " must be 0 or more");
  check<ValueError>(std::isfinite(weight_decay) && weight_decay >= 0, rule, "weight_decay = ", weight_decay, " must be 0 or more");
}

}  // namespace lowrank::inline LOWRANK_ABI
