#pragma once

#include <cmath>
#include <span>

#include <lowrank/optim/clip.hpp>

#include <transformer/train.hpp>

namespace transformer {

/// Whether a step keeps a block's input only.
inline bool recomputes(const Transformer& model, const TrainOptions& options, const Batch& batch) {
  if (options.recompute != Recompute::automatic) return options.recompute == Recompute::always;
  return model.kept_bytes(static_cast<Index>(batch.ids.size())) > recompute_above;
}

/// What a pass counts for in the mean over the predicted tokens of a step's passes.
inline double share_of(const Batch& part, std::span<const Batch> parts) {
  Index all = 0;
  for (const Batch& each : parts) all += each.predicted();
  return all > 0 ? static_cast<double>(part.predicted()) / static_cast<double>(all) : 1 / static_cast<double>(parts.size());
}

/// Optimizer steps on a device, of a pass or several each.
template <class Device>
class Steps;

template <>
class Steps<Cpu> {
 public:
  Steps(Transformer& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
        const TrainOptions& options)
      : model_(model), lora_(lora), optimizer_(optimizer), parameters_(parameters), options_(options) {}

  /// The loss; a loss that is not finite changes nothing.
  double run(std::span<const Batch> parts) {
    optimizer_.zero_grad();
    double number = 0;
    for (const Batch& part : parts) {
      const double share = share_of(part, parts);
      const Var<float> loss = model_.loss(part.ids, part.targets, part.sequences,
                                          {.tape = &tape_, .lora = lora_, .recompute = recomputes(model_, options_, part)});
      number += share * static_cast<double>(loss.item());
      if (!std::isfinite(number)) return number;
      if (loss.requires_grad()) tape_.backward(loss, Activation<float>::Constant(1, 1, static_cast<float>(share)));
    }
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
