#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace transformer {

/// A stretch [begin, end) of a piece that is one token so far; `id` is negative while no token spells it.
struct Symbol {
  std::size_t begin, end;
  std::int32_t id;
  std::size_t previous = none, next = none;
  bool joined = false;  ///< gone into its left neighbour

  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
};

/// What two neighbours may become, and how soon: the smallest rank first, among equals the leftmost.
struct Merge {
  double rank;
  std::int32_t id;
};

/// Byte pair encoding: joins neighbours, best merge first, until lookup(left, right) -> std::optional<Merge> finds no more.
///
/// A queue holds every possible merge; one whose symbols have changed since is passed over. Cost: O(n log n) for n symbols. Returns what
/// is left, from left to right. Sennrich et al. 2016.
template <class Lookup>
std::vector<Symbol> merge_symbols(std::vector<Symbol> symbols, Lookup&& lookup) {
  struct Candidate {
    double rank;
    std::size_t left, left_end, right_end;
    std::int32_t id;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto propose = [&](std::size_t left) {
    if (left == Symbol::none || symbols[left].next == Symbol::none) return;
    const Symbol &a = symbols[left], &b = symbols[a.next];
    if (const std::optional<Merge> merge = lookup(a, b)) queue.push({merge->rank, left, a.end, b.end, merge->id});
  };
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = i == 0 ? Symbol::none : i - 1;
    symbols[i].next = i + 1 == symbols.size() ? Symbol::none : i + 1;
  }
  for (std::size_t i = 0; i < symbols.size(); ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    if (left.joined || left.next == Symbol::none || left.end != best.left_end || symbols[left.next].end != best.right_end) continue;
    Symbol& right = symbols[left.next];
    right.joined = true;
    left.end = right.end;
    left.id = best.id;
    left.next = right.next;
    if (left.next != Symbol::none) symbols[left.next].previous = best.left;
    propose(left.previous);
    propose(best.left);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.joined; });
  return symbols;
}

/// Lets a map with std::string keys be asked with a std::string_view.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using TokenMap = std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;

/// Merges of two tokens, by their ids.
class MergeTable {
 public:
  void add(std::int32_t left, std::int32_t right, Merge merge) { merges_[key(left, right)] = merge; }
  std::optional<Merge> find(std::int32_t left, std::int32_t right) const {
    const auto found = merges_.find(key(left, right));
    return found == merges_.end() ? std::nullopt : std::optional(found->second);
  }
  void reserve(std::size_t count) { merges_.reserve(count); }

 private:
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  // Ids are small and dense: mixed, so that pairs do not share buckets.
  struct Mix {
    std::size_t operator()(std::uint64_t x) const {
      x = (x ^ x >> 32) * 0x9E3779B97F4A7C15u;
      return static_cast<std::size_t>(x ^ x >> 29);
    }
  };
  std::unordered_map<std::uint64_t, Merge, Mix> merges_;
};

}  // namespace transformer
