#pragma once

/// What the parts of `lowrank bench` share.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <transformer/generate.hpp>
#include <transformer/train.hpp>

#include <cli/common.hpp>

namespace cli::bench {

inline constexpr Index decode_prompt = 32;

struct Options {
  Common common;
  std::string model, base = "native";
  std::vector<std::string> adapters;
  std::vector<Index> contexts;
  std::string plot, cache = "auto";
  Index batch = 4, sequence = 128, rank = 16, steps = 5;
  Index prompt = 512, tokens = 128, repetitions = 3;
  transformer::Recompute recompute = transformer::Recompute::automatic;
  bool skip_training = false, skip_generation = false, batch_invariant = false, profile = false;
};

/// Seconds of equal runs.
struct Times {
  std::vector<double> seconds;

  double median() const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
  }
  /// Of `tokens` tokens a run, a second.
  double rate(Index tokens) const { return static_cast<double>(tokens) / median(); }
  double fastest() const { return *std::min_element(seconds.begin(), seconds.end()); }
  double slowest() const { return *std::max_element(seconds.begin(), seconds.end()); }
};

std::vector<std::int32_t> random_ids(const Transformer& model, Index count, std::uint64_t seed);

/// Runs options.steps + 1 steps of forward, backward and AdamW on one random batch, and calls done after each.
template <class Device>
void train_steps(Transformer& model, LoraSet& lora, const Options& options,
                 const std::function<void(const transformer::StepReport&)>& done);

/// --profile on the CPU: prints where the threads' time goes in a prompt, a token and a step, and adds it to the report.
void print_profile(Session& session, LoraSet* adapter, LoraSet* trained, const Options& options, Json& json);

/// A row of the table: median, range, tokens/s of `tokens` tokens in `runs` parts of a measured time.
void add_row(Table& table, const std::string& name, const Times& times, Index tokens, Index runs = 1);

/// Decoding after contexts of several lengths.
struct ContextOptions {
  std::vector<Index> contexts;  ///< tokens that were read before
  Index tokens = 128, repetitions = 3;
  transformer::CachePrecision cache;
  std::uint64_t seed = 0;
};

struct ContextSpeed {
  Index context;
  Times bare, adapted;  // of options.tokens tokens; adapted: where there is an adapter
};

struct ContextSpeeds {
  std::vector<ContextSpeed> at;
  double bandwidth = 0;                          ///< bytes a second that all threads read from memory
  double weight_bytes = 0, bytes_per_token = 0;  ///< a token reads all weights, and so many bytes a token of context
  Index tokens = 0;

  /// Bytes that decoding reads a token, on average over the tokens of a run.
  double bytes(Index context) const {
    return weight_bytes + bytes_per_token * (static_cast<double>(context) + static_cast<double>(tokens + 1) / 2);
  }
};

/// Measures decoding after each context, shortest first, and the bandwidth of memory.
ContextSpeeds measure_contexts(Session& session, LoraSet* adapter, const ContextOptions& options);

void add_context_rows(Table& table, const ContextSpeeds& speeds);
void print_contexts(const ContextSpeeds& speeds);
void add_contexts(Json& json, const ContextSpeeds& speeds);
/// tokens/s against context: measured, and what memory allows. Throws IoError.
void plot_contexts(const std::string& path, const Session& session, const ContextSpeeds& speeds);

}  // namespace cli::bench
