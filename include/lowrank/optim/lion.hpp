#pragma once

#include <cmath>
#include <span>
#include <vector>

#include <lowrank/optim/optimizer.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Constants of Lion; its learning rate is about a tenth of AdamW's, its decay ten times as large (the paper's section 5).
struct LionOptions {
  double learning_rate = 1e-4;
  double beta1 = 0.9, beta2 = 0.99;
  double weight_decay = 0;
};

/// The rule of Lion, whose state is one number a parameter.
///
///   u = sign(β₁ m + (1 - β₁) g),  p ← p - η (u + λ p),  m ← β₂ m + (1 - β₂) g
/// Chen et al. 2023, "Symbolic discovery of optimization algorithms", program 1.
struct LionRule {
  using Options = LionOptions;

  static void check_options(const Options& options);

  template <class S>
  static Moments<S> memory(const Options&, Index rows, Index cols) {
    static constexpr const char* names[] = {"momentum"};
    return {names, rows, cols};
  }

  template <class S>
  static void update(const Options& options, const ParameterStep<S>& p, Moments<S>& memory) {
    const S rate = static_cast<S>(options.learning_rate), decay = static_cast<S>(options.weight_decay);
    const S beta1 = static_cast<S>(options.beta1), beta2 = static_cast<S>(options.beta2);
    const std::span<S> m = memory[0];
    for (std::size_t i = 0; i < p.value.size(); ++i) {
      const S g = p.grad[i], direction = beta1 * m[i] + (1 - beta1) * g;
      const S sign = static_cast<S>((direction > 0) - (direction < 0));
      p.value[i] -= rate * (sign + decay * p.value[i]);
      m[i] = beta2 * m[i] + (1 - beta2) * g;
    }
  }
};

/// Lion over parameters(model).
template <class S = float>
class Lion : public Optimizer<LionRule, S> {
 public:
  using Optimizer<LionRule, S>::Optimizer;
};

template <class S>
Lion(std::vector<ParameterRef<S>>) -> Lion<S>;
template <class S>
Lion(std::vector<ParameterRef<S>>, LionOptions) -> Lion<S>;

#if defined(LOWRANK_COMPILED)
extern template class Optimizer<LionRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/lion.inl>
#endif
