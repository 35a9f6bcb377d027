#pragma once

#include <optional>
#include <string>
#include <vector>

#include <lowrank/ops/decompose.hpp>

#include <transformer/adapters.hpp>
#include <transformer/data.hpp>

namespace transformer {

/// How a fresh set begins (adapters/initialize.hpp, adapters/eva.hpp say what each does).
enum class LoraStart { standard, gaussian, orthogonal, pissa, pissa_fast, olora, loftq, eva, lora_ga };

/// Throws ValueError for an unknown name.
LoraStart parse_start(const std::string& name);

/// What a beginning needs beside the model.
struct StartOptions {
  LoraStart start = LoraStart::standard;
  std::uint64_t seed = 0;
  Index batch = 4, batches = 4;  ///< data that eva and lora_ga look at
  double rank_spread = 1;        ///< eva: above 1, ranks are redistributed over the layers, up to so many times the rank each
};

/// A set to be trained, and what of the base was moved into it.
struct StartedLora {
  LoraSet lora;
  std::optional<LoraSet> moved = {};  ///< the beginning, where the model's layers have become W - s B A
};

/// Makes a fresh set for a configuration. pissa, olora and lora_ga change the model's layers to W - s B A, in place and without a dense
/// copy of a quantized weight; loftq quantizes them to NF4 and the configuration then asks for such a base. eva may change the ranks in the
/// configuration. Throws ValueError.
StartedLora start_lora(Transformer& model, LoraConfig& config, const StartOptions& options, const std::vector<Example>& examples);

/// The trained set for the model as it was before start_lora: s [B, -B₀] [A; A₀], of twice the rank, where something was moved; `config`
/// becomes that set's.
LoraSet plain_lora(const StartedLora& started, LoraConfig& config);

/// The leading singular directions of dL/dW of each target, summed over some batches, from gradients of low-rank probes: dL/dW, as large as
/// the model, is never made. An update with A = Ω, B = 0 leaves the model as it is and has dL/dB = dL/dW Ωᵀ, one with A = 0, B = Q has
/// dL/dA = Qᵀ dL/dW: the two products of a randomized SVD. Cost: four times forward and backward over the batches.
std::vector<lowrank::Svd> gradient_directions(Transformer& model, const std::vector<Index>& slots, Index rank, const StartOptions& options,
                                              const std::vector<Example>& examples);

}  // namespace transformer
