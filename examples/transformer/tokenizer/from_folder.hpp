#pragma once

#include <filesystem>

#include <transformer/tokenizer/data.hpp>

namespace transformer {

/// The tokenizer of a Hugging Face folder: tokenizer.json, and from tokenizer_config.json, generation_config.json, config.json and
/// chat_template.jinja, where they exist, the tokens that begin and end a text. Throws IoError, FormatError.
TokenizerData tokenizer_data_from_folder(const std::filesystem::path& folder);

}  // namespace transformer
