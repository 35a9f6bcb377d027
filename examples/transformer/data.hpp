#pragma once

#include <cstddef>
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

/// Token ids of B sequences of T, one after the other, and what each is to predict (lowrank::ignored_target: nothing).
struct Batch {
  std::vector<std::int32_t> ids, targets;
  Index sequences = 0;
  Index length() const { return sequences ? static_cast<Index>(ids.size()) / sequences : 0; }
};

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

/// Puts examples side by side; shorter ones are filled up on the right, where causal attention keeps the filling from mattering.
Batch make_batch(const std::vector<const Example*>& examples);

/// Deals examples in a random order that each epoch renews; the order is a pure function of the seed.
class BatchStream {
 public:
  BatchStream(const std::vector<Example>& examples, Index batch, std::uint64_t seed) : examples_(examples), batch_(batch), seed_(seed) {}

  /// The batch of a step; steps may be asked for in any order, so a resumed run sees what an unbroken one would.
  Batch at(Index step);

 private:
  void shuffle(Index epoch);

  const std::vector<Example>& examples_;
  Index batch_;
  std::uint64_t seed_;
  Index epoch_ = -1;
  std::vector<std::size_t> order_;
};

}  // namespace transformer
