#pragma once

#include <cmath>

#include <lowrank/optim/clip.hpp>

#include <transformer/train.hpp>

namespace transformer {

/// Whether a step keeps a block's input only.
inline bool recomputes(const Transformer& model, const TrainOptions& options, const Batch& batch) {
  if (options.recompute != Recompute::automatic) return options.recompute == Recompute::always;
  return model.kept_bytes(static_cast<Index>(batch.ids.size())) > recompute_above;
}

/// Optimizer steps on a device, one a batch.
template <class Device>
class Steps;

template <>
class Steps<Cpu> {
 public:
  Steps(Transformer& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
        const TrainOptions& options)
      : model_(model), lora_(lora), optimizer_(optimizer), parameters_(parameters), options_(options) {}

  /// The loss; a loss that is not finite changes nothing.
  double run(const Batch& batch) {
    optimizer_.zero_grad();
    const Var<float> loss = model_.loss(batch.ids, batch.targets, batch.sequences,
                                        {.tape = &tape_, .lora = lora_, .recompute = recomputes(model_, options_, batch)});
    double number = loss.item();
    if (!std::isfinite(number)) return number;
    if (loss.requires_grad()) tape_.backward(loss);
    if (lora_) number += add_penalties(*lora_);
    if (options_.clip_norm > 0) clip_gradient_norm(parameters_, options_.clip_norm);
    optimizer_.step();
    return number;
  }
  void download() {}

 private:
  Transformer& model_;
  LoraSet* lora_;
  lowrank::AdamW<float>& optimizer_;
  const std::vector<ParameterRef<float>>& parameters_;
  const TrainOptions& options_;
  Tape<float> tape_;
};

}  // namespace transformer
