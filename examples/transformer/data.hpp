#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>

#include <transformer/data/report.hpp>

namespace transformer {

using lowrank::Index;

/// One training sequence, in which tokens predict what follows them.
struct Example {
  std::vector<std::int32_t> ids;
  std::vector<bool> learned = {};  ///< of each token whether it is to be predicted; empty: all are

  /// Whether a token counts: the first one, which nothing comes before, never does.
  bool predicts(std::size_t token) const { return token > 0 && token < ids.size() && (learned.empty() || learned[token]); }
};

/// Examples for training and a held-out part, and how they came about.
struct Dataset {
  std::vector<Example> train, held_out;
  DataReport report = {};
};

/// All bytes of a file. Throws IoError.
std::string read_text(const std::filesystem::path& path);

/// Cuts a stream of tokens into windows of length + 1 that share one token, so that each token but the first is predicted once.
/// The last window may be shorter; one token alone predicts nothing and is dropped.
std::vector<Example> windows(const std::vector<std::int32_t>& ids, Index length);

/// Splits a stream of tokens: the last tenth is held out (less when training needs it for one whole sequence), both parts are cut into
/// windows. Throws ValueError when there is nothing to predict.
Dataset split_stream(const std::vector<std::int32_t>& ids, Index length, const std::string& name);

}  // namespace transformer
