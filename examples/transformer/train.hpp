#pragma once

#include <chrono>
#include <cmath>
#include <functional>
#include <vector>

#include <lowrank/optim/adamw.hpp>
#include <lowrank/optim/clip.hpp>
#include <lowrank/optim/schedule.hpp>

#include <transformer/data.hpp>
#include <transformer/model.hpp>

namespace transformer {

using lowrank::ParameterRef;

enum class Schedule { constant, linear, cosine };

struct TrainOptions {
  Index steps = 100, batch = 4, warmup = 0;
  double learning_rate = 2e-4;
  double weight_decay = 0;
  double clip_norm = 1;  ///< 0: no clipping
  Schedule schedule = Schedule::linear;
  std::uint64_t seed = 0;
};

/// What one step did; given to the caller after each.
struct StepReport {
  Index step;  ///< from 0
  double loss, seconds;
  Index tokens;  ///< read, not only predicted
};

/// Share of the learning rate at a step.
inline double learning_rate_share(const TrainOptions& options, Index step) {
  switch (options.schedule) {
    case Schedule::linear: return lowrank::linear_schedule(step, {options.steps, options.warmup});
    case Schedule::cosine: return lowrank::cosine_schedule(step, {options.steps, options.warmup});
    case Schedule::constant: break;
  }
  return step < options.warmup ? static_cast<double>(step + 1) / static_cast<double>(options.warmup) : 1.0;
}

/// Trains what is trainable of the model and the set, from step `first` on; the frozen rest is only read.
///
/// Loss is the mean cross-entropy of a batch, nats a token. Throws ValueError when it stops being finite.
inline void train(Llama& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
                  const std::vector<Example>& examples, const TrainOptions& options, const std::function<void(const StepReport&)>& report,
                  Index first = 0) {
  BatchStream batches(examples, options.batch, options.seed);
  Tape<float> tape;
  for (Index step = first; step < options.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const Batch batch = batches.at(step);
    optimizer.zero_grad();
    const Var<float> loss = model.loss(batch.ids, batch.targets, batch.sequences, {.tape = &tape, .lora = lora});
    lowrank::check<lowrank::ValueError>(std::isfinite(loss.item()), "train", "the loss of step ", step + 1, " is ", loss.item(),
                                        "; lower --learning-rate");
    if (loss.requires_grad()) tape.backward(loss);
    if (options.clip_norm > 0) clip_gradient_norm(parameters, options.clip_norm);
    optimizer.set_learning_rate(options.learning_rate * learning_rate_share(options, step));
    optimizer.step();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    report({step, static_cast<double>(loss.item()), seconds.count(), static_cast<Index>(batch.ids.size())});
  }
}

/// Mean negative log-likelihood, nats a predicted token, and how many were predicted.
struct Evaluation {
  double mean_nll = 0;
  Index tokens = 0;
  double perplexity() const { return std::exp(mean_nll); }
};

inline Evaluation evaluate(Llama& model, LoraSet* lora, const std::vector<Example>& examples, Index batch_tokens = 512) {
  double sum = 0;
  Evaluation result;
  for (std::size_t i = 0; i < examples.size();) {
    std::vector<const Example*> group{&examples[i++]};
    const std::size_t length = group.front()->ids.size();
    while (i < examples.size() && examples[i].ids.size() == length && static_cast<Index>((group.size() + 1) * length) <= batch_tokens)
      group.push_back(&examples[i++]);
    const Batch batch = make_batch(group);
    const auto counted = std::count_if(batch.targets.begin(), batch.targets.end(), [](auto t) { return t != lowrank::ignored_target; });
    if (counted == 0) continue;
    sum += static_cast<double>(counted) * model.loss(batch.ids, batch.targets, batch.sequences, {.lora = lora}).item();
    result.tokens += counted;
  }
  lowrank::check<lowrank::ValueError>(result.tokens > 0, "evaluate", "there is no token to predict; give more text");
  result.mean_nll = sum / static_cast<double>(result.tokens);
  return result;
}

}  // namespace transformer
