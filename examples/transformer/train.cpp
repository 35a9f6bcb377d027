#include <transformer/train.hpp>

#include <algorithm>
#include <chrono>

#include <lowrank/optim/clip.hpp>
#include <lowrank/optim/schedule.hpp>

#include <transformer/load.hpp>

namespace transformer {

double learning_rate_share(const TrainOptions& options, Index step) {
  switch (options.schedule) {
    case Schedule::linear:
      return lowrank::linear_schedule(step, {options.steps, options.warmup});
    case Schedule::cosine:
      return lowrank::cosine_schedule(step, {options.steps, options.warmup});
    case Schedule::constant:
      break;
  }
  return step < options.warmup ? static_cast<double>(step + 1) / static_cast<double>(options.warmup) : 1.0;
}

namespace {
bool recomputes(const Llama& model, const TrainOptions& options, const Batch& batch) {
  if (options.recompute != Recompute::automatic) return options.recompute == Recompute::always;
  return model.kept_bytes(static_cast<Index>(batch.ids.size())) > recompute_above;
}
}  // namespace

void train(Llama& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
           const std::vector<Example>& examples, const TrainOptions& options, const std::function<void(const StepReport&)>& report,
           Index first) {
  BatchStream batches(examples, options.batch, options.seed);
  Tape<float> tape;
  for (Index step = first; step < options.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const Batch batch = batches.at(step);
    optimizer.zero_grad();
    const Var<float> loss = model.loss(batch.ids, batch.targets, batch.sequences,
                                       {.tape = &tape, .lora = lora, .recompute = recomputes(model, options, batch)});
    if (!std::isfinite(loss.item()))
      lowrank::fail<lowrank::ValueError>("train", "the loss of step ", step + 1, " is ", loss.item(), not_finite_reason(model, lora));
    if (loss.requires_grad()) tape.backward(loss);
    if (options.clip_norm > 0) clip_gradient_norm(parameters, options.clip_norm);
    optimizer.set_learning_rate_share(learning_rate_share(options, step));
    optimizer.step();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    report({step, static_cast<double>(loss.item()), seconds.count(), static_cast<Index>(batch.ids.size())});
  }
}

Evaluation evaluate(Llama& model, LoraSet* lora, const std::vector<Example>& examples, Index batch_tokens) {
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
    const double loss = model.loss(batch.ids, batch.targets, batch.sequences, {.lora = lora}).item();
    if (!std::isfinite(loss)) lowrank::fail<lowrank::ValueError>("evaluate", "the loss is ", loss, not_finite_reason(model, lora));
    sum += static_cast<double>(counted) * loss;
    result.tokens += counted;
  }
  lowrank::check<lowrank::ValueError>(result.tokens > 0, "evaluate", "there is no token to predict; give more text");
  result.mean_nll = sum / static_cast<double>(result.tokens);
  return result;
}

}  // namespace transformer
