#include <lowrank/optim/schedule.hpp>

#include <transformer/train.inl>

namespace transformer {

double learning_rate_share(const TrainOptions& options, Index step) {
  const lowrank::ScheduleOptions course{options.steps, options.warmup};
  if (options.schedule == Schedule::linear) return lowrank::linear_schedule(step, course);
  if (options.schedule == Schedule::cosine) return lowrank::cosine_schedule(step, course);
  return lowrank::constant_schedule(step, course);
}

template void train<Cpu>(Transformer&, LoraSet*, lowrank::AdamW<float>&, const std::vector<ParameterRef<float>>&,
                         const std::vector<Example>&, const TrainOptions&, const std::function<void(const StepReport&)>&, const Stretch&);
template Evaluation evaluate<Cpu>(Transformer&, LoraSet*, const std::vector<Example>&, Index);

}  // namespace transformer
