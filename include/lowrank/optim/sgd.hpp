#pragma once

#include <vector>

#include <lowrank/optim/optimizer.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Constants of gradient descent.
struct SgdOptions {
  double learning_rate = 1e-2;
  double momentum = 0;
  double weight_decay = 0;
};

/// The rule of gradient descent: g ← g + λ p,  m ← μ m + g,  p ← p - η m (m = g without momentum). The same as torch.optim.SGD.
struct SgdRule {
  using Options = SgdOptions;

  static void check_options(const Options& options);

  template <class S>
  static Moments<S> memory(const Options& options, Index rows, Index cols) {
    static constexpr const char* names[] = {"momentum"};
    return {{names, options.momentum == 0 ? std::size_t{0} : std::size_t{1}}, rows, cols};
  }

  template <class S>
  static void update(const Options& options, const ParameterStep<S>& p, Moments<S>& memory) {
    const S rate = static_cast<S>(options.learning_rate), decay = static_cast<S>(options.weight_decay);
    const S momentum = static_cast<S>(options.momentum);
    for (std::size_t i = 0; i < p.value.size(); ++i) {
      S direction = p.grad[i] + decay * p.value[i];
      if (!memory.numbers.empty()) direction = memory.numbers[i] = momentum * memory.numbers[i] + direction;
      p.value[i] -= rate * direction;
    }
  }
};

/// Stochastic gradient descent over parameters(model); state of one number a parameter with momentum, none without.
template <class S = float>
class Sgd : public Optimizer<SgdRule, S> {
 public:
  using Optimizer<SgdRule, S>::Optimizer;
};

template <class S>
Sgd(std::vector<ParameterRef<S>>) -> Sgd<S>;
template <class S>
Sgd(std::vector<ParameterRef<S>>, SgdOptions) -> Sgd<S>;

#if defined(LOWRANK_COMPILED)
extern template class Optimizer<SgdRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/sgd.inl>
#endif
