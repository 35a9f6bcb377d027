#pragma once

#include <map>
#include <memory>
#include <utility>

#include <lowrank/optim/clip.hpp>

#include <transformer/train.hpp>

namespace transformer {

/// Whether a step keeps a block's input only.
inline bool recomputes(const Llama& model, const TrainOptions& options, const Batch& batch) {
  if (options.recompute != Recompute::automatic) return options.recompute == Recompute::always;
  return model.kept_bytes(static_cast<Index>(batch.ids.size())) > recompute_above;
}

/// Optimizer steps on a device, one a batch.
template <class Device>
class Steps;

template <>
class Steps<Cpu> {
 public:
  Steps(Llama& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
        const TrainOptions& options)
      : model_(model), lora_(lora), optimizer_(optimizer), parameters_(parameters), options_(options) {}

  /// The loss; a loss that is not finite changes nothing.
  double run(const Batch& batch) {
    optimizer_.zero_grad();
    const Var<float> loss = model_.loss(batch.ids, batch.targets, batch.sequences,
                                        {.tape = &tape_, .lora = lora_, .recompute = recomputes(model_, options_, batch)});
    const double number = loss.item();
    if (!std::isfinite(number)) return number;
    if (loss.requires_grad()) tape_.backward(loss);
    if (options_.clip_norm > 0) clip_gradient_norm(parameters_, options_.clip_norm);
    optimizer_.step();
    return number;
  }
  void download() {}

 private:
  Llama& model_;
  LoraSet* lora_;
  lowrank::AdamW<float>& optimizer_;
  const std::vector<ParameterRef<float>>& parameters_;
  const TrainOptions& options_;
  Tape<float> tape_;
};

/// On the GPU in use. A shape of batch is recorded when it comes first, and run as a whole from then on.
template <>
class Steps<Cuda> {
 public:
  Steps(Llama& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>&, const TrainOptions& options)
      : model_(model), lora_(lora), options_(options), optimizer_(optimizer) {}

  double run(const Batch& batch) {
    optimizer_.begin_step();
    const bool all_count = std::find(batch.targets.begin(), batch.targets.end(), lowrank::ignored_target) == batch.targets.end();
    const auto shape = std::pair(batch.ids.size(), batch.sequences);
    const auto found = recorded_.find(shape);
    if (found != recorded_.end() && all_count) return found->second->run(batch);
    if (!all_count || recorded_.size() == most_shapes) return step(batch).item();
    auto fresh = std::make_unique<RecordedStep>(*this, batch);
    const double loss = fresh->losses.front().item();
    recorded_.emplace(shape, std::move(fresh));
    return loss;
  }
  void download() { optimizer_.download(); }

 private:
  static constexpr std::size_t most_shapes = 4;  // each has its own memory

  struct RecordedStep {
    Batch batch;
    std::vector<Var<float, Cuda>> losses;  // of the rehearsal, which was a step like any other, and of the last run
    lowrank::cuda::Recording recording;

    RecordedStep(Steps& steps, const Batch& first)
        : batch(first), recording(lowrank::cuda::Machine::current(), [&] { losses.push_back(steps.step(batch)); }) {}
    double run(const Batch& next) {
      std::copy(next.ids.begin(), next.ids.end(), batch.ids.begin());
      std::copy(next.targets.begin(), next.targets.end(), batch.targets.begin());
      recording.run();
      return losses.back().item();
    }
  };

  Var<float, Cuda> step(const Batch& batch) {
    Var<float, Cuda> loss = model_.loss<Cuda>(batch.ids, batch.targets, batch.sequences,
                                              {.tape = &tape_, .lora = lora_, .recompute = recomputes(model_, options_, batch)});
    if (loss.requires_grad()) tape_.backward(loss);
    optimizer_.update(options_.clip_norm);
    return loss;
  }

  Llama& model_;
  LoraSet* lora_;
  const TrainOptions& options_;
  lowrank::cuda::DeviceAdamW optimizer_;
  Tape<float, Cuda> tape_;
  std::map<std::pair<std::size_t, Index>, std::unique_ptr<RecordedStep>> recorded_;
};

}  // namespace transformer
