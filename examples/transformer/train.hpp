#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include <lowrank/optim/adamw.hpp>

#include <transformer/batch.hpp>
#include <transformer/model.hpp>

namespace transformer {

using lowrank::ParameterRef;

enum class Schedule { constant, linear, cosine };
enum class Recompute { automatic, always, never };
inline constexpr std::size_t recompute_above = std::size_t{256} << 20;  ///< kept bytes from which Recompute::automatic recomputes

struct TrainOptions {
  Index steps = 100, batch = 4, warmup = 0;
  Index accumulate = 1;  ///< passes a step, of a batch each, in the memory of one
  PackOptions pack = {};
  double learning_rate = 2e-4;
  double weight_decay = 0;
  double clip_norm = 1;  ///< 0: no clipping
  Schedule schedule = Schedule::linear;
  Recompute recompute = Recompute::automatic;  ///< blocks are computed again in the backward pass: a third more work, far less memory
  std::uint64_t seed = 0;
  Index read_every = 0;  ///< on a GPU parameters and optimizer state come back after so many steps, and after the last
};

/// What one step did; given to the caller after each.
struct StepReport {
  Index step;  ///< from 0
  double loss, seconds;
  Index tokens;  ///< read, not only predicted
};

/// Share of the learning rate at a step.
double learning_rate_share(const TrainOptions& options, Index step);

/// Steps [first, last) of a run, as far as it has so many.
struct Stretch {
  Index first = 0, last = std::numeric_limits<Index>::max();
};

/// Trains what is trainable of the model and the set; the frozen rest is only read. A run in stretches has the bits of one.
///
/// Loss is the mean cross-entropy of a step's predicted tokens, in nats, however many passes they are spread over: accumulate passes of a
/// batch have the gradient of one accumulate times as large, to rounding (the order of sums). With Device = Cuda on the GPU in use, each
/// shape of batch recorded once and run as a whole. Throws ValueError when the loss stops being finite.
template <class Device = Cpu>
void train(Transformer& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>& parameters,
           const std::vector<Example>& examples, const TrainOptions& options, const std::function<void(const StepReport&)>& report,
           const Stretch& stretch = {});

/// Mean negative log-likelihood, nats a predicted token, and how many were predicted.
struct Evaluation {
  double mean_nll = 0;
  Index tokens = 0;
  double perplexity() const { return std::exp(mean_nll); }
};

template <class Device = Cpu>
Evaluation evaluate(Transformer& model, LoraSet* lora, const std::vector<Example>& examples, Index batch_tokens = 512);

}  // namespace transformer
