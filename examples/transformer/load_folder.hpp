#pragma once

#include <filesystem>

#include <transformer/model.hpp>

namespace transformer {

/// Sizes from config.json.
ModelConfig folder_config(const std::filesystem::path& folder);

/// A Transformer from a Hugging Face folder (config.json, model.safetensors or its shards): weights stay mapped in the format they have.
/// Throws IoError, or FormatError for anything missing, left over or wrongly shaped.
Transformer load_folder(const std::filesystem::path& folder);

}  // namespace transformer
