#pragma once

/// What the parts of `lowrank bench` share.

#include <string>
#include <vector>

#include <transformer/train.hpp>

#include <cli/common.hpp>

namespace cli::bench {

inline constexpr Index decode_prompt = 32;

struct Options {
  Common common;
  std::string model, base = "native";
  std::vector<std::string> adapters;
  Index batch = 4, sequence = 128, rank = 16, steps = 5;
  Index prompt = 512, tokens = 128, repetitions = 3;
  transformer::Recompute recompute = transformer::Recompute::automatic;
  bool skip_training = false, skip_generation = false, batch_invariant = false, profile = false;
};

std::vector<std::int32_t> random_ids(const Llama& model, Index count, std::uint64_t seed);

/// Runs options.steps + 1 steps of forward, backward and AdamW on one random batch, and calls done after each.
template <class Device>
void train_steps(Llama& model, LoraSet& lora, const Options& options, const std::function<void(const transformer::StepReport&)>& done);

/// --profile on the CPU: prints where the threads' time goes in a prompt, a token and a step, and adds it to the report.
void print_profile(Session& session, LoraSet* adapter, LoraSet* trained, const Options& options, Json& json);

}  // namespace cli::bench
