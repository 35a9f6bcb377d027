#pragma once

#include <lowrank/quant/any_matrix.hpp>

#include <transformer/adapters.hpp>

namespace transformer {

/// Whether a set changes the weight of a slot, by an update or a full copy; slots() is the token table.
bool changes_weight(const LoraSet& set, Index slot);

/// W' of a slot: the model's own W, or the copy that the set brings, with s B A added (DoRA: its rows scaled; the token table: (s B A)ᵀ, of
/// DoRA its columns scaled), and rows that the set brings in the place of a table's.
///
/// Decoded while it is read, in no dense copy of W or of the update; model and set must outlive it. Throws ShapeError.
lowrank::AnyMatrix merged_weight(const Transformer& model, const LoraSet& set, Index slot);

/// Whether a set changes the bias of a slot.
bool changes_bias(const Transformer& model, const LoraSet& set, Index slot);

/// b + s b_B of a slot [out], or nothing where neither the base nor the update has a bias.
lowrank::Column<float> merged_bias(const Transformer& model, const LoraSet& set, Index slot);

/// The model with W' in place of every W that the set changes, dense and in fp32: for comparison. A tied head becomes one of its own where
/// it and the token table part.
Transformer merged(const Transformer& model, const LoraSet& set);

}  // namespace transformer
