#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace transformer {

/// What is done to plain text before it is cut: a prefix, one string put for another, normalization form C.
class Normalizer {
 public:
  void add_prefix(std::string prefix) { steps_.push_back({"", std::move(prefix), false}); }
  /// Throws FormatError for an empty `from`.
  void add_replacement(std::string from, std::string to);
  void add_nfc() { steps_.push_back({"", "", true}); }

  bool empty() const { return steps_.empty(); }

  /// Throws FormatError when replacements make the text more than 64 times longer, as those of a hostile file may do again and again.
  std::string operator()(std::string_view text) const;

 private:
  struct Step {
    std::string from, to;  // an empty `from`: `to` is a prefix
    bool nfc = false;
  };
  std::vector<Step> steps_;
};

}  // namespace transformer
