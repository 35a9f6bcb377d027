#pragma once

#include <filesystem>
#include <vector>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/target.hpp>
#include <lowrank/io/gguf_lora.hpp>

#include <transformer/config.hpp>

namespace transformer {

/// Who wrote an adapter: PEFT (a folder), llama.cpp's tools (a GGUF file) or mlx-lm (a folder).
enum class AdapterFormat { peft, gguf, mlx };

/// The format of an adapter by what is there, not by its name. Throws IoError when it is none of them.
AdapterFormat adapter_format(const std::filesystem::path& path);

/// The matrices of a model in a GGUF file and their Hugging Face paths. A tied head has no tensor of its own.
lowrank::gguf::LoraBase gguf_base(const ModelConfig& config);

/// All modules that an adapter of this model may change: the linear ones, the head even where it is tied, and the embedding.
std::vector<lowrank::ModuleShape> module_shapes(const ModelConfig& config);

/// Opens an adapter of any format for this base. Throws FormatError, or ShapeError naming the first module that does not fit it.
lowrank::Adapter open_adapter(const ModelConfig& config, const std::filesystem::path& path);

/// The same without a base, to look into it: names and sizes are the file's own, and the rows of a GGUF file's q and k stay in its order.
lowrank::Adapter open_adapter(const std::filesystem::path& path);

/// Throws for what a GGUF adapter of this base cannot hold: DoRA, biases, full copies, and a change of the token table or of the head where
/// they are one tensor, since llama.cpp adds an adapter to a tensor wherever it is used.
void check_gguf_adapter(const ModelConfig& config, const lowrank::Adapter& adapter, const std::filesystem::path& path);

/// Writes an adapter that llama.cpp adds to this base. Throws what check_gguf_adapter throws, and IoError.
void save_gguf_adapter(const ModelConfig& config, const lowrank::Adapter& adapter, const std::filesystem::path& path);

}  // namespace transformer
