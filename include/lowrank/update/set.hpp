#pragma once

/// Adapters bound to a model: updates of its linear layers, found by the layers' paths.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <lowrank/adapters/recompress.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/update_set.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Slots that a configuration names. "all-linear" means every linear layer but the output head, lm_head, and no convolution.
std::vector<Index> target_slots(const ModelLayers& layers, const LoraConfig& config);

/// Fresh updates of what a configuration names, by its method, full copies of its modules_to_save and rows of its trained_tokens. Numbers
/// are drawn from the seed, other ones for each slot. Throws ValueError.
UpdateSet new_updates(const ModelLayers& layers, const LoraConfig& config, LoraInit init, std::uint64_t seed);

/// A loaded adapter for a model: its updates, and what it replaces: linear layers, norms, the token table and the head, which may have
/// another number of tokens than the model's, and single rows of these two.
///
/// Throws ShapeError when it belongs to another model, ValueError for what the model cannot hold, and where an adapter that needs its base
/// in one format (LoraConfig::needs_base) meets another.
UpdateSet apply(const Adapter& adapter, const ModelLayers& layers);

/// A set as an adapter, ready to be saved; `config` says what it is. Names and shapes are those of files.
Adapter adapter_of(const UpdateSet& set, const ModelLayers& layers, LoraConfig config);

/// Multiplies the updates by a number. Throws ValueError where that has no meaning: updates that are no sum, full copies.
void scale(UpdateSet& set, double weight);

/// Several sets as one: Σ sᵢ Bᵢ Aᵢ = [s₁B₁ | s₂B₂ | …] · [A₁ ; A₂ ; …], exactly. Throws ValueError for updates that are no such sum.
UpdateSet sum(std::span<const UpdateSet> sets);

/// The updates as LoRA, each at a rank or with a share of its energy: s B M A + s Δ of its plan as two factors, exact where the rank
/// suffices.
///
/// The layers are those that the set is for; what depends on their weights is taken as of now. Throws ValueError for updates that are no
/// sum (merge them), that have a bias, for token tables and full copies.
FittedAdapter to_lora(const UpdateSet& set, const ModelLayers& layers, const RankChoice& choice);

/// Computes once what inference with a fixed set needs again and again.
void prepare(UpdateSet& set, const ModelLayers& layers);

/// Whether a method of the set adds a term of its own to the loss of training.
bool has_penalties(const UpdateSet& set);

/// The mean of these terms over the updates that have one (AdaLoRA: orthogonality), its gradient added to the parameters': to be called
/// after the backward pass of a step, before the gradients are clipped.
double add_penalties(UpdateSet& set);

/// Numbers that a set holds.
Index parameter_count(const UpdateSet& set);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/set.inl>
#endif
