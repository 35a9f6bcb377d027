#include <transformer/batch.hpp>

#include <algorithm>
#include <map>
#include <numeric>

#include <lowrank/core/random.hpp>
#include <lowrank/ops/loss.hpp>

namespace transformer {

namespace {

/// What token i of an example is to predict.
std::int32_t target(const Example& example, std::size_t i) {
  return example.predicts(i + 1) ? example.ids[i + 1] : lowrank::ignored_target;
}

/// Tokens that a text has in a row: its last one predicts nothing, but what follows it in a stream sees it.
std::size_t tokens_of(const Example& example, Packing packing) { return example.ids.size() - (packing == Packing::stream ? 0 : 1); }

void append(const Example& example, std::size_t count, Batch& batch) {
  batch.ids.insert(batch.ids.end(), example.ids.begin(), example.ids.begin() + static_cast<std::ptrdiff_t>(count));
  for (std::size_t i = 0; i < count; ++i) batch.targets.push_back(target(example, i));
}

}  // namespace

Index Batch::predicted() const {
  return static_cast<Index>(targets.size()) - std::count(targets.begin(), targets.end(), lowrank::ignored_target);
}

std::vector<Row> make_rows(const std::vector<Example>& examples, const PackOptions& options) {
  std::vector<const Example*> sorted;
  for (const Example& example : examples) sorted.push_back(&example);
  std::vector<Row> rows;
  if (options.packing == Packing::none) {
    for (const Example* example : sorted) rows.push_back({example});
    return rows;
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const Example* a, const Example* b) { return a->ids.size() > b->ids.size(); });
  const Index fresh = options.tokens + (options.packing == Packing::stream ? 1 : 0);  // the last token of a row predicts nothing
  std::multimap<Index, std::size_t> room;                                             // of each row
  for (const Example* example : sorted) {
    const auto tokens = static_cast<Index>(tokens_of(*example, options.packing));
    const auto found = room.lower_bound(tokens);
    const std::size_t row = found == room.end() ? rows.size() : found->second;
    const Index left = (found == room.end() ? fresh : found->first) - tokens;
    if (found == room.end())
      rows.emplace_back();
    else
      room.erase(found);
    rows[row].push_back(example);
    room.emplace(left, row);
  }
  return rows;
}

Batch make_batch(const std::vector<const Row*>& rows, Packing packing) {
  Batch batch;
  std::vector<Index> lengths;
  for (const Row* row : rows) {
    const std::size_t begin = batch.ids.size();
    for (const Example* example : *row) {
      const std::size_t count = tokens_of(*example, packing);
      append(*example, count, batch);
      if (packing == Packing::walls) lengths.push_back(static_cast<Index>(count));
    }
    if (packing == Packing::stream) batch.ids.pop_back(), batch.targets.pop_back();
    if (packing != Packing::walls) lengths.push_back(static_cast<Index>(batch.ids.size() - begin));
  }
  batch.sequences = lowrank::Sequences::with_lengths(std::move(lengths));
  return batch;
}

Batch make_batch(const std::vector<const Example*>& examples) {
  std::size_t length = 0;
  for (const Example* example : examples) length = std::max(length, tokens_of(*example, Packing::none));
  Batch batch{{}, {}, static_cast<Index>(examples.size())};
  for (const Example* example : examples) {
    const std::size_t count = tokens_of(*example, Packing::none);
    append(*example, count, batch);
    batch.ids.insert(batch.ids.end(), length - count, example->ids.back());
    batch.targets.insert(batch.targets.end(), length - count, lowrank::ignored_target);
  }
  return batch;
}

Batch BatchStream::at(Index step) {
  std::vector<const Row*> chosen;
  for (Index i = 0; i < batch_; ++i) {
    const Index position = step * batch_ + i;
    shuffle(position / rows());
    chosen.push_back(&rows_[order_[static_cast<std::size_t>(position % rows())]]);
  }
  if (packing_ != Packing::none) return make_batch(chosen, packing_);
  std::vector<const Example*> examples;
  for (const Row* row : chosen) examples.push_back(row->front());
  return make_batch(examples);
}

void BatchStream::shuffle(Index epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  order_.resize(rows_.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  lowrank::Random random(seed_, static_cast<std::uint64_t>(epoch) + 1);
  for (std::size_t i = order_.size(); i > 1; --i)
    std::swap(order_[i - 1], order_[static_cast<std::size_t>(random.below(static_cast<Index>(i)))]);
}

std::uint64_t fingerprint(const std::vector<Example>& examples) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](std::uint64_t number) { hash = (hash ^ number) * 0x100000001b3u; };
  for (const Example& example : examples) {
    add(example.ids.size());
    for (std::size_t i = 0; i < example.ids.size(); ++i)
      add(static_cast<std::uint32_t>(example.ids[i])), add(target(example, i) != lowrank::ignored_target);
  }
  return hash;
}

}  // namespace transformer
