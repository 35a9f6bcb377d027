#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>

namespace transformer {
class Tokenizer;
}

namespace transformer {

using lowrank::Index;

/// One training sequence: token i predicts token i + 1 where i + 1 >= predict_from.
struct Example {
  std::vector<std::int32_t> ids;
  Index predict_from = 1;
};

/// Examples for training and a held-out part.
struct Dataset {
  std::vector<Example> train, held_out;
};

/// All bytes of a file. Throws IoError.
std::string read_text(const std::filesystem::path& path);

/// Cuts a stream of tokens into windows of length + 1 that share one token, so that each token but the first is predicted once.
/// The last window may be shorter; one token alone predicts nothing and is dropped.
std::vector<Example> windows(const std::vector<std::int32_t>& ids, Index length);

/// Splits a stream of tokens: the last tenth is held out (less when training needs it), the rest is cut into full windows.
/// Throws ValueError when there is not even one sequence.
Dataset split_stream(const std::vector<std::int32_t>& ids, Index length, const std::string& name);

/// Reads --data: a text file, or .jsonl with `text`, or with `prompt` and `completion`; sequences of at most `length` predictions.
Dataset load_data(const Tokenizer& tokenizer, const std::filesystem::path& path, Index length);

/// The whole file for evaluation, nothing held out.
std::vector<Example> load_evaluation(const Tokenizer& tokenizer, const std::filesystem::path& path, Index length);

}  // namespace transformer
