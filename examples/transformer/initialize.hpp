#pragma once

#include <cstdint>

#include <transformer/model.hpp>

namespace transformer {

/// A fresh trainable Llama with tied head: N(0, 0.02²), and N(0, 0.02² / 2 layers) for the maps that add to the residual stream
/// (Radford et al. 2019).
Llama random_llama(const LlamaConfig& config, std::uint64_t seed);

}  // namespace transformer
