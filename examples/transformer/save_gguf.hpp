#pragma once

#include <filesystem>
#include <string>

#include <transformer/adapters.hpp>

namespace transformer {

/// Writes a byte-level model with tied head as GGUF: matrices in Q4_1, the table in Q8_0, norms in F32.
void save_byte_model(const Transformer& model, const std::string& name, const std::filesystem::path& path);

/// Throws for a set that GGUF adapters of this model cannot hold.
void check_gguf_adapter(const Transformer& model, const LoraSet& set, const std::filesystem::path& path);

/// Writes a set as a GGUF adapter that llama.cpp adds to the model it was trained on.
void save_gguf_adapter(const Transformer& model, const LoraSet& set, const std::filesystem::path& path);

}  // namespace transformer
