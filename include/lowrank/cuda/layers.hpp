#pragma once

/// Linear layers and the token table on a GPU, for Vars: frozen bases in their own format, with low-rank updates that train.

#include <cstdint>
#include <span>
#include <vector>

#include <lowrank/autograd/tape.hpp>
#include <lowrank/cuda/array.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/update/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// layer(x) of several layers for one x [in, T] on a GPU, each with an update or one a range of tokens: one [out, T] a layer; x is rounded
/// once for all.
///
/// Updates that are a sum W + s B A train, bases do not. Throws ShapeError, and ValueError for what a GPU does not run.
std::vector<Var<float, Cuda>> forward_together(std::span<const LayerUse> uses, const Var<float, Cuda>& x);

/// Updates of the token table do not run on a GPU yet. Throws ValueError.
Var<float, Cuda> add_embedding_update(Var<float, Cuda> y, std::span<const std::int32_t> ids, Index sequences, LoraWeights<float>& update);

/// Rows ids of a table as columns [in, T], on the machine in use; a constant that knows the tape, if there is one. Throws ValueError.
Var<float, Cuda> embed(AnyLinear& table, Tape<float, Cuda>* tape, std::span<const std::int32_t> ids);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/layers.inl>
#endif
