#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <lowrank/ops/sequences.hpp>

#include <transformer/data.hpp>

namespace transformer {

/// Token ids of sequences that follow each other, and what each is to predict (lowrank::ignored_target: nothing).
struct Batch {
  std::vector<std::int32_t> ids, targets;
  lowrank::Sequences sequences = {};

  /// Tokens whose prediction counts.
  Index predicted() const;
};

/// How texts share the rows of a batch.
enum class Packing {
  none,    ///< a row each; shorter ones are filled up
  stream,  ///< one after the other: a text sees what stands before it in its row
  walls    ///< one after the other: attention and positions begin anew with each text
};

struct PackOptions {
  Packing packing = Packing::none;
  Index tokens = 0;  ///< of a packed row, at most
};

/// The texts of a row.
using Row = std::vector<const Example*>;

/// A row for each example; or, packed, as few rows as best fit gives: the longest texts first, each into the fullest row that has room for
/// it. A text that is longer than a row has one of its own. Cost: O(n log n).
std::vector<Row> make_rows(const std::vector<Example>& examples, const PackOptions& options = {});

/// Puts rows side by side. Filling stands on the right, where causal attention keeps it from mattering; packed rows need none. The last
/// token of a text predicts nothing, and the next text's first token is predicted by none.
Batch make_batch(const std::vector<const Row*>& rows, Packing packing = Packing::none);
/// One example a row.
Batch make_batch(const std::vector<const Example*>& examples);

/// Deals rows in a random order that each epoch renews; the order is a pure function of the seed.
class BatchStream {
 public:
  BatchStream(const std::vector<Example>& examples, Index batch, std::uint64_t seed, const PackOptions& pack = {})
      : rows_(make_rows(examples, pack)), packing_(pack.packing), batch_(batch), seed_(seed) {}

  /// Rows of an epoch.
  Index rows() const { return static_cast<Index>(rows_.size()); }
  /// The batch of a step; steps may be asked for in any order, so a resumed run sees what an unbroken one would. Batches of n rows are
  /// those of 2n rows in halves.
  Batch at(Index step);

 private:
  void shuffle(Index epoch);

  std::vector<Row> rows_;
  Packing packing_;
  Index batch_;
  std::uint64_t seed_;
  Index epoch_ = -1;
  std::vector<std::size_t> order_;
};

/// A hash (FNV-1a) of every token and of what is predicted: of two data sets with the same one, a run learns the same.
std::uint64_t fingerprint(const std::vector<Example>& examples);

}  // namespace transformer
