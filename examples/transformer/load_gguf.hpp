#pragma once

#include <filesystem>

#include <lowrank/io/gguf.hpp>

#include <transformer/model.hpp>

namespace transformer {

/// Sizes from the metadata. The rows of q and k lie so that neighbours turn together, which RoPE's interleaved pairing follows.
LlamaConfig gguf_config(const lowrank::gguf::File& file);

/// A Llama from a GGUF file: weights stay mapped in the format they have. Throws IoError, or FormatError for anything missing or left over.
Llama load_gguf(const lowrank::gguf::File& file);
Llama load_gguf(const std::filesystem::path& path);

}  // namespace transformer
