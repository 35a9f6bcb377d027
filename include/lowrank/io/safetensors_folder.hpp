#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/safetensors.hpp>

/// A model of Hugging Face: a folder with model.safetensors, or with shards and model.safetensors.index.json, whose
/// {"weight_map": {NAME: FILE, …}} says which file has which tensor. https://huggingface.co/docs/safetensors

namespace lowrank::inline LOWRANK_ABI::safetensors {

/// All files of such a folder, mapped, in the order of their names; no two have a tensor of one name.
///
/// Throws IoError, and FormatError "[operation] …" that names what is wrong: neither file is there, an index that is not well formed or
/// names a shard that is missing, a tensor in two shards, in the index alone, in a shard alone, or in another shard than the index says.
std::vector<File> open_folder(const std::filesystem::path& folder, std::string_view operation = "safetensors");

/// What a folder holds in the place of a model in safetensors, and what to do about it: the end of a sentence that begins with the folder.
std::string instead_of_model(const std::filesystem::path& folder);

}  // namespace lowrank::inline LOWRANK_ABI::safetensors

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/safetensors_folder.inl>
#endif
