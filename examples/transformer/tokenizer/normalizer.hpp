#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/error.hpp>

namespace transformer {

/// What is done to plain text before it is cut: a prefix, and one string put for another.
class Normalizer {
 public:
  void add_prefix(std::string prefix) { steps_.push_back({"", std::move(prefix)}); }
  void add_replacement(std::string from, std::string to) {
    lowrank::check<lowrank::FormatError>(!from.empty(), "tokenizer", "a normalizer replaces an empty string; name what it replaces");
    steps_.push_back({std::move(from), std::move(to)});
  }

  bool empty() const { return steps_.empty(); }

  std::string operator()(std::string_view text) const {
    std::string result(text);
    for (const auto& [from, to] : steps_) {
      if (from.empty())
        result.insert(0, result.empty() ? "" : to);
      else
        result = replace(result, from, to);
    }
    return result;
  }

 private:
  static std::string replace(std::string_view text, std::string_view from, std::string_view to) {
    std::string result;
    for (;;) {
      const std::size_t found = text.find(from);
      result += text.substr(0, found);
      if (found == std::string_view::npos) return result;
      result += to;
      text.remove_prefix(found + from.size());
    }
  }

  std::vector<std::pair<std::string, std::string>> steps_;  // (from, to); an empty `from` is a prefix
};

}  // namespace transformer
