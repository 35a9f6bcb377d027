#pragma once

#include <lowrank/io/gguf.hpp>

#include <transformer/tokenizer/data.hpp>

namespace transformer {

/// The tokenizer in a GGUF file's metadata: model "gpt2" (byte pairs with the pre-tokenizer in `tokenizer.ggml.pre`) or "llama" (pairs by
/// score). Throws FormatError.
TokenizerData tokenizer_data_from_gguf(const lowrank::gguf::File& file);

}  // namespace transformer
