#pragma once

/// What a forward pass of a transformer may be given.

#include <functional>
#include <span>

#include <lowrank/autograd/tape.hpp>
#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/update/set.hpp>

#include <transformer/cache.hpp>

namespace transformer {

using lowrank::Activation;
using lowrank::AdaptedLinear;
using lowrank::Cpu;
using lowrank::Cuda;
using lowrank::LoraWeights;
using lowrank::Parameter;
using lowrank::Sequences;
using lowrank::Tape;
using lowrank::to_host;
using lowrank::Var;

/// Updates by slot (see slot()), the token table's behind those of the linear layers: what turns the one frozen base into a task's model.
using LoraSet = lowrank::UpdateSet;

/// How a forward pass is run; everything is optional.
template <class Device = Cpu>
struct Pass {
  Tape<float, Device>* tape = nullptr;       ///< records for backward
  LoraSet* lora = nullptr;                   ///< updates added to the base
  std::span<LoraSet* const> row_loras = {};  ///< instead: the updates of each sequence, all equally long, null for the bare base
  Cache<Device>* cache = nullptr;            ///< continues a sequence (one sequence only)
  bool recompute = false;                    ///< keeps a block's input only, and runs the block again in the backward pass
  /// Sees the input of every linear map; of maps that share it (q, k and v; gate and up) once, under the first one's slot.
  std::function<void(Index slot, const Activation<float>& x)> observe = {};
};

}  // namespace transformer
