#pragma once

/// How files say that positions are stretched: config.json and GGUF metadata into RopeOptions.

#include <transformer/config.hpp>
#include <transformer/fields.hpp>

namespace transformer {

/// Reads rope_theta, rope_scaling, rope_parameters and their kin: default, linear, dynamic, llama3, yarn, longrope. Throws FormatError for
/// another kind or numbers without sense. transformers 5.24, modeling_rope_utils.py.
void read_folder_rope(const Fields& fields, ModelConfig& config);

/// Reads rope.* below the architecture's name: linear, yarn, longrope. Factors that are tensors come later. llama.cpp, load_hparams.
void read_gguf_rope(const Fields& fields, ModelConfig& config);

}  // namespace transformer
