#pragma once

#include <filesystem>

#include <lowrank/adapters/adapter.hpp>

/// Adapter folders of Hugging Face PEFT: adapter_config.json and adapter_model.safetensors.
///
/// A tensor's name is "base_model.model." + module path + suffix, which the method gives it (update/registry.hpp): of LoRA ".lora_A.weight"
/// [r, in], ".lora_B.weight" [out, r], ".lora_B.bias" [out]; of an embedding ".lora_embedding_A" [r, vocabulary], ".lora_embedding_B" [dim,
/// r]; of a convolution ".lora_A.weight" [r, channels, kernel…], ".lora_B.weight" [out, r, 1…], which is LoRA of the map [out, channels ·
/// kernel] that its weight [out, channels, kernel…] is. Tensors keep the shapes of their file.
///
/// Whole tensors follow the path of their module: ".weight" of modules_to_save and of tables that grew, ".base_layer.weight" of a table
/// that is adapted, ".token_adapter.trainable_tokens_delta" [tokens, dim], the rows of trainable_token_indices; ".modules_to_save.weight"
/// and
/// ".original_module.weight", which PEFT writes beside them where a table grew, are kept and not used.
///
/// Two keys of the tensors' file, which PEFT passes over, are this library's: "lowrank.version", which wrote it, and "lowrank.base" = "nf4"
/// of an adapter that makes up for rounding to NF4 (LoftQ) and is right over such a base only (LoraConfig::needs_base).

namespace lowrank::inline LOWRANK_ABI::peft {

/// Loads an adapter folder; tensors share the mapped file. Missing, unexpected or wrongly shaped tensors, numbers that are not finite and
/// configuration keys that are not supported are FormatErrors that name them; throws IoError for files that cannot be read.
Adapter load(const std::filesystem::path& folder);

/// Saves an adapter folder that PEFT loads; creates the folder when it does not exist. What is loaded and saved keeps every tensor's bytes.
///
/// The adapter is checked as `load` does before anything is written; both files are complete on the disk before either takes its name.
/// Throws FormatError or ValueError for an adapter that could not be loaded again, IoError; then nothing that existed has changed.
void save(const Adapter& adapter, const std::filesystem::path& folder);

}  // namespace lowrank::inline LOWRANK_ABI::peft

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/peft.inl>
#endif
