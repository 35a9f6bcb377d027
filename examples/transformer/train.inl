#pragma once

#include <algorithm>
#include <chrono>

#include <transformer/load.hpp>
#include <transformer/steps.hpp>

namespace transformer {

template <class Device>
void train(Transformer& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
           const std::vector<Example>& examples, const TrainOptions& options, const std::function<void(const StepReport&)>& report,
           Index first) {
  BatchStream batches(examples, options.batch, options.seed);
  Steps<Device> steps(model, lora, optimizer, parameters, options);
  for (Index step = first; step < options.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const Batch batch = batches.at(step);
    optimizer.set_learning_rate_share(learning_rate_share(options, step));
    const double loss = steps.run(batch);
    if (!std::isfinite(loss))
      lowrank::fail<lowrank::ValueError>("train", "the loss of step ", step + 1, " is ", loss, not_finite_reason(model, lora));
    const bool is_read = step + 1 == options.steps || (options.read_every > 0 && (step + 1) % options.read_every == 0);
    if (is_read) steps.download();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    report({step, loss, seconds.count(), static_cast<Index>(batch.ids.size())});
  }
}

template <class Device>
Evaluation evaluate(Transformer& model, LoraSet* lora, const std::vector<Example>& examples, Index batch_tokens) {
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
    const double loss = model.loss<Device>(batch.ids, batch.targets, batch.sequences, {.lora = lora}).item();
    if (!std::isfinite(loss)) lowrank::fail<lowrank::ValueError>("evaluate", "the loss is ", loss, not_finite_reason(model, lora));
    sum += static_cast<double>(counted) * loss;
    result.tokens += counted;
  }
  lowrank::check<lowrank::ValueError>(result.tokens > 0, "evaluate", "there is no token to predict; give more text");
  result.mean_nll = sum / static_cast<double>(result.tokens);
  return result;
}

}  // namespace transformer
