#pragma once

/// The passes that are timed: inference, and a training step in its parts.

#include <rank_tradeoff/budget.hpp>
#include <rank_tradeoff/stack.hpp>

namespace rank_tradeoff {

/// X [d, T] and G = dL/dY [d, T].
struct Batch {
  Activation<float> x, g;
  Batch(Index d, Index tokens)
      : x(benchmarks::random_matrix<Activation<float>>(d, tokens, 2)), g(benchmarks::random_matrix<Activation<float>>(d, tokens, 3)) {}
};

inline void keep(const Activation<float>& y) {
  [[maybe_unused]] static volatile float sink = 0;
  sink = y(0, 0);
}

inline void forward(const AnyLinear& base, const LoraWeights<float>* update, const Batch& batch) {
  keep(update ? lowrank::detail::adapted(base, const_cast<LoraWeights<float>*>(update), batch.x) : base(batch.x));
}

struct StepSample {
  Sample backward, step;
};

/// `count` steps; without an update forward and backward of the frozen base. The processor's time is shared out as the clock's.
template <class NextBase>
StepSample train(int count, const NextBase& next_base, LoraWeights<float>* update, lowrank::AdamW<float>* optimizer, const Batch& batch) {
  using benchmarks::seconds;
  static lowrank::Tape<float> tape;
  double backward = 0, step = 0, cpu = 0;
  for (int i = 0; i < count; ++i) {
    AnyLinear& base = next_base();
    const lowrank::Var<float> input = tape.variable(batch.x);
    Activation<float> gradient = batch.g;
    const double cpu_start = processor_seconds(), start = seconds();
    if (optimizer) optimizer->zero_grad();
    const lowrank::Var<float> y = update ? lowrank::detail::adapted(base, update, {}, input) : base(input);
    const double middle = seconds();
    tape.backward(y, std::move(gradient));
    const double end = seconds();
    if (optimizer) optimizer->step();
    step += seconds() - start;
    cpu += processor_seconds() - cpu_start;
    backward += end - middle;
  }
  const double share = cpu / step, n = count;
  return {{backward / n, backward * share / n}, {step / n, cpu / n}};
}

}  // namespace rank_tradeoff
