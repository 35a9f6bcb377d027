#pragma once

#include <cmath>
#include <span>
#include <vector>

#include <lowrank/optim/optimizer.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Constants of AdamW; the defaults are PyTorch's.
struct AdamWOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;
};

/// The rule of AdamW; step counts from 1.
///
///   p ← p (1 - η λ),  m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,  p ← p - η m̂ / (√v̂ + ε)
/// with m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ). Loshchilov and Hutter 2019, algorithm 2; the same as torch.optim.AdamW.
struct AdamWRule {
  using Options = AdamWOptions;

  static void check_options(const Options& options);

  template <class S>
  static Moments<S> memory(const Options&, Index rows, Index cols) {
    static constexpr const char* names[] = {"first_moment", "second_moment"};
    return {names, rows, cols};
  }

  /// The factors of one step, as kernels take them.
  template <class S>
  struct Factors {
    S decay, rate, correction, beta2, epsilon, toward1, toward2;
  };
  template <class S>
  static Factors<S> factors(const Options& options, Index step) {
    const double t = static_cast<double>(step);
    return {.decay = static_cast<S>(1 - options.learning_rate * options.weight_decay),
            .rate = static_cast<S>(options.learning_rate / (1 - std::pow(options.beta1, t))),
            .correction = static_cast<S>(std::sqrt(1 - std::pow(options.beta2, t))),
            .beta2 = static_cast<S>(options.beta2),
            .epsilon = static_cast<S>(options.epsilon),
            .toward1 = static_cast<S>(1 - options.beta1),
            .toward2 = static_cast<S>(1 - options.beta2)};
  }

  template <class S>
  static void advance(const Options& options, Index step, std::span<S> value, std::span<const S> grad, std::span<S> first,
                      std::span<S> second) {
    const auto [decay, rate, correction, beta2, epsilon, toward1, toward2] = factors<S>(options, step);
    for (std::size_t i = 0; i < value.size(); ++i) {
      const S g = grad[i];
      first[i] += toward1 * (g - first[i]);
      second[i] = beta2 * second[i] + toward2 * g * g;
      value[i] = decay * value[i] - rate * first[i] / (std::sqrt(second[i]) / correction + epsilon);
    }
  }
  template <class S>
  static void update(const Options& options, const ParameterStep<S>& p, Moments<S>& memory) {
    advance<S>(options, p.step, p.value, p.grad, memory[0], memory[1]);
  }
};

/// In float by the processor's own loop.
template <>
void AdamWRule::advance<float>(const Options& options, Index step, std::span<float> value, std::span<const float> grad,
                               std::span<float> first, std::span<float> second);

/// AdamW over parameters(model); state of two numbers a parameter.
///
///   AdamW optimizer{parameters(layer), {.learning_rate = 2e-4}};
template <class S = float>
class AdamW : public Optimizer<AdamWRule, S> {
 public:
  using Optimizer<AdamWRule, S>::Optimizer;
};

template <class S>
AdamW(std::vector<ParameterRef<S>>) -> AdamW<S>;
template <class S>
AdamW(std::vector<ParameterRef<S>>, AdamWOptions) -> AdamW<S>;

#if defined(LOWRANK_COMPILED)
extern template class Optimizer<AdamWRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/adamw.inl>
#endif
