#pragma once

#include <filesystem>

#include <lowrank/io/gguf.hpp>

#include <transformer/model.hpp>

namespace transformer {

/// What the metadata says, read by the table of architectures. Where its rows of q and k lie so that neighbours turn together, RoPE's
/// interleaved pairing follows them.
ModelConfig gguf_config(const lowrank::gguf::File& file);

/// A model from a GGUF file: weights stay mapped in the format they have. Throws IoError, or FormatError for anything missing or left over.
Transformer load_gguf(const lowrank::gguf::File& file);
Transformer load_gguf(const std::filesystem::path& path);

}  // namespace transformer
