#pragma once

/// What an adapter replaces as a whole beside its updates: layers, norms, rows of token tables; and heads that follow their table.

#include <span>

#include <lowrank/update/update_set.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The layer of a slot, or the copy that stands in for it.
const AdaptedLinear& layer_used(std::span<const NamedLayer> layers, const UpdateSet& set, Index slot);

/// Full copies, to be trained, of the modules that modules_to_save names, and rows of the tables whose tokens are trained. Throws
/// ValueError.
void add_fresh_copies(const ModelLayers& layers, const LoraConfig& config, UpdateSet& set);

/// What an adapter's file brings whole. Throws ShapeError, and ValueError for what has no place.
void add_saved(const ModelLayers& layers, const Adapter& adapter, UpdateSet& set);

/// Heads that are the token table follow it where the configuration says so, and in rows that are trained for both. Throws ValueError.
void tie_heads(const ModelLayers& layers, const LoraConfig& config, UpdateSet& set);

/// Throws ShapeError where the token table has another number of tokens than the head.
void check_tokens(const ModelLayers& layers, const UpdateSet& set);

/// What the set replaces, under the names of files; a head that follows the token table has the table's numbers.
void append_saved(const UpdateSet& set, const ModelLayers& layers, Adapter& adapter);

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/replaced.inl>
#endif
