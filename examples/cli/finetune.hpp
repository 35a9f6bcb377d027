#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <transformer/initialize_lora.hpp>
#include <transformer/train.hpp>

#include <cli/checkpoint.hpp>
#include <cli/common.hpp>

/// The command finetune in its parts: what may be asked for (finetune_options.cpp), what a run is known by (finetune_identity.cpp), how it
/// goes (finetune_course.cpp), and all of it together (finetune.cpp).

namespace cli::finetune {

struct Options {
  Common common;
  std::string model, data, evaluation_data, out, format = "peft", base = "native", adapter;
  std::string targets = "all-linear", method = "lora", init = "default", exclude, save_modules, rank_pattern, alpha_pattern;
  std::string checkpoint, plot, schedule = "linear", packing = "none", learning_rate = "0.0002";
  Index rank = 16, sequence = 128, checkpoint_every = 50, evaluate_every = 0, patience = 0;
  std::vector<Index> layers, tokens;
  double alpha = 0, dropout = 0, lora_plus = 1, epochs = 0;
  bool rslora = false, lora_bias = false, freeze_a = false, tie = false, resume = false, keep_best = false;
  transformer::TrainOptions train;
  transformer::StartOptions start;
  transformer::DataOptions reading;
};

void add_options(Command command, Options& options);

/// Throws ValueError for options that contradict each other, before anything is read.
void check_options(const Options& options);

/// What the update's options ask for.
lowrank::LoraConfig lora_config(const Options& options);

/// Puts numbers in place of what the options leave to the model and the data: the rate, the steps of so many epochs.
void settle(Options& options, const lowrank::LoraConfig& config, const Transformer& model, const transformer::Dataset& data);

/// A run with all that decides its result.
struct Run {
  const Options& options;
  const lowrank::LoraConfig& config;
  std::string compute;
  std::uint64_t base = 0, data = 0, held_out = 0, adapter = 0;  ///< hashes of contents; 0: none
};

/// The values of all settings that decide the result of a run, by option.
std::vector<Setting> settings(const Run& run);

/// Throws ValueError for an option of the update that is given and says otherwise than the configuration of a saved adapter.
void check_same_update(const Command& command, Options options, const lowrank::LoraConfig& saved);

/// A loss on held-out text after so many steps.
struct Evaluated {
  Index step = 0;
  double loss = 0;
};

/// What happened in a run, and, from its checkpoint, before it.
struct Course {
  std::vector<double> losses, seconds;
  std::vector<Evaluated> evaluations = {};
  double tokens = 0;

  /// The first of the evaluations with the least loss, or null.
  const Evaluated* best() const;
};

/// Trains, with evaluations and checkpoints in between, until the steps are done or patience ends. Afterwards the set has the best numbers
/// where the options keep them.
Course run_training(const Options& options, const std::vector<Setting>& settings, Session& session, LoraSet& lora,
                    const transformer::Dataset& data);

/// Loss on held-out text.
double held_out_loss(Session& session, LoraSet& lora, const transformer::Dataset& data);

}  // namespace cli::finetune
