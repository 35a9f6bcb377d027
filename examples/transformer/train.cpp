#include <lowrank/optim/schedule.hpp>

#include <transformer/train.inl>

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

template void train<Cpu>(Transformer&, LoraSet*, lowrank::AdamW<float>&, const std::vector<ParameterRef<float>>&, const std::vector<Example>&,
                         const TrainOptions&, const std::function<void(const StepReport&)>&, Index);
template Evaluation evaluate<Cpu>(Transformer&, LoraSet*, const std::vector<Example>&, Index);

}  // namespace transformer
