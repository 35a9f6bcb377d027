#pragma once

#include <cstdint>

#include <transformer/model.hpp>

namespace transformer {

/// A fresh trainable Llama with tied head: N(0, 0.02²), and N(0, 0.02² / 2 layers) for the maps that add to the residual stream
/// (Radford et al. 2019).
Transformer random_model(const ModelConfig& config, std::uint64_t seed);

}  // namespace transformer
