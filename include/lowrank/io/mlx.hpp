#pragma once

#include <filesystem>

#include <lowrank/adapters/adapter.hpp>

/// Adapter folders of mlx-lm, read only: adapter_config.json and adapters.safetensors.
///
/// A tensor's name is module path + suffix: ".lora_a" [in, r] (of an embedding [vocabulary, r]), ".lora_b" [r, out], and of methods with
/// one vector more ".m" [out]. W becomes W + scale · (lora_a · lora_b)ᵀ. The configuration has fine_tune_type (a method's name; full is no
/// adapter), num_layers (so many of the last blocks; -1: all) and lora_parameters: rank, scale, dropout, keys; the rest says how the
/// training went. https://github.com/ml-explore/mlx-lm

namespace lowrank::inline LOWRANK_ABI::mlx {

/// Whether a folder holds an adapter of mlx-lm.
bool is_adapter(const std::filesystem::path& folder);

/// Loads an adapter folder of mlx-lm; matrices are transposed, their element type kept. Missing, unexpected or wrongly shaped tensors,
/// numbers that are not finite and parameters that are not supported are FormatErrors that name them; throws IoError.
Adapter load(const std::filesystem::path& folder);

}  // namespace lowrank::inline LOWRANK_ABI::mlx

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/mlx.inl>
#endif
