#pragma once

#include <array>
#include <vector>

#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/nn/parameter.hpp>

#include <transformer/config.hpp>

namespace transformer {

using lowrank::AdaptedLinear;
using lowrank::Parameter;

/// The weights of one layer: attention and MLP.
struct Block {
  std::array<Parameter<float>, norm_places> norms;  // by NormPlace; empty where the family has none
  std::vector<AdaptedLinear> maps;                  // in the order of ModelConfig::projections

  Parameter<float>& norm(NormPlace place) { return norms[static_cast<std::size_t>(place)]; }
  const Parameter<float>& norm(NormPlace place) const { return norms[static_cast<std::size_t>(place)]; }
};

}  // namespace transformer
