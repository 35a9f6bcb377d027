#pragma once

#include <algorithm>
#include <chrono>

#include <transformer/load.hpp>
#include <transformer/steps.hpp>

namespace transformer {

/// The next recorded pass draws its masks of dropout from that number on, so that a step's masks depend on the step alone.
inline void set_masks(LoraSet* lora, Index pass) {
  if (!lora) return;
  for (auto& update : lora->slots)
    if (auto* dropout = update.dropout()) dropout->stream = static_cast<std::uint64_t>(pass);
}

inline Index tokens_of(const std::vector<Batch>& parts) {
  Index tokens = 0;
  for (const Batch& part : parts) tokens += static_cast<Index>(part.ids.size());
  return tokens;
}

template <class Device>
void train(Transformer& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
           const std::vector<Example>& examples, const TrainOptions& options, const std::function<void(const StepReport&)>& report,
           const Stretch& stretch) {
  BatchStream batches(examples, options.batch, options.seed, options.pack);
  Steps<Device> steps(model, lora, optimizer, parameters, options);
  const Index last = std::min(stretch.last, options.steps);
  for (Index step = stretch.first; step < last; ++step) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<Batch> parts;
    for (Index i = 0; i < options.accumulate; ++i) parts.push_back(batches.at(step * options.accumulate + i));
    optimizer.set_learning_rate_share(learning_rate_share(options, step));
    set_masks(lora, step * options.accumulate);
    const double loss = steps.run(parts);
    if (!std::isfinite(loss))
      lowrank::fail<lowrank::ValueError>("train", "the loss of step ", step + 1, " is ", loss, not_finite_reason(model, lora));
    const bool is_read = step + 1 == last || (options.read_every > 0 && (step + 1) % options.read_every == 0);
    if (is_read) steps.download();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    report({step, loss, seconds.count(), tokens_of(parts)});
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
