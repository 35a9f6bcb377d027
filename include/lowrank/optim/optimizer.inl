#pragma once

#include <cstring>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void detail::check_rate(const char* rule, double learning_rate, double weight_decay) {
  check<ValueError>(is_finite(learning_rate) && learning_rate >= 0, rule, "learning_rate = ", learning_rate, " must be 0 or more");
  check<ValueError>(is_finite(weight_decay) && weight_decay >= 0, rule, "weight_decay = ", weight_decay, " must be 0 or more");
}

LOWRANK_INLINE void detail::check_betas(const char* rule, double beta1, double beta2) {
  const auto is_share = [](double beta) { return is_finite(beta) && beta >= 0 && beta < 1; };
  check<ValueError>(is_share(beta1) && is_share(beta2), rule, "beta1 = ", beta1, ", beta2 = ", beta2, " must lie in [0, 1)");
}

LOWRANK_INLINE const char* detail::fault_of_steps(std::span<const std::byte> bytes) {
  Index steps = 0;
  std::memcpy(&steps, bytes.data(), sizeof steps);
  return steps >= 0 ? nullptr : "a number of steps cannot be negative";
}

LOWRANK_INLINE const char* detail::fault_of_rates(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(double)) {
    double rate = 0;
    std::memcpy(&rate, bytes.data() + i, sizeof rate);
    if (!is_finite(rate) || rate < 0) return "a learning rate must be finite and 0 or more";
  }
  return nullptr;
}

}  // namespace lowrank::inline LOWRANK_ABI
