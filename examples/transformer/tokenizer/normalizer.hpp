#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <transformer/tokenizer/nfc.hpp>
#include <lowrank/error.hpp>

namespace transformer {

/// What is done to plain text before it is cut: a prefix, one string put for another, normalization form C.
class Normalizer {
 public:
  void add_prefix(std::string prefix) { steps_.push_back({"", std::move(prefix), false}); }
  void add_replacement(std::string from, std::string to) {
    lowrank::check<lowrank::FormatError>(!from.empty(), "tokenizer", "a normalizer replaces an empty string; name what it replaces");
    steps_.push_back({std::move(from), std::move(to), false});
  }

  void add_nfc() { steps_.push_back({"", "", true}); }

  bool empty() const { return steps_.empty(); }

  /// Throws FormatError when replacements make the text more than 64 times longer, as those of a hostile file may do again and again.
  std::string operator()(std::string_view text) const {
    std::string result(text);
    const std::size_t longest = 64 * text.size() + 65536;
    for (const auto& [from, to, nfc] : steps_) {
      if (nfc)
        result = to_nfc(result);
      else if (from.empty())
        result.insert(0, result.empty() ? "" : to);
      else
        result = replace(result, from, to, longest);
    }
    return result;
  }

 private:
  static std::string replace(std::string_view text, std::string_view from, std::string_view to, std::size_t longest) {
    std::string result;
    for (;;) {
      const std::size_t found = text.find(from);
      result += text.substr(0, found);
      if (found == std::string_view::npos) return result;
      result += to;
      lowrank::check<lowrank::FormatError>(result.size() <= longest, "tokenizer", "its normalizer makes more than ", longest,
                                           " bytes of a short text; the tokenizer is damaged");
      text.remove_prefix(found + from.size());
    }
  }

  struct Step {
    std::string from, to;  // an empty `from`: `to` is a prefix
    bool nfc = false;
  };
  std::vector<Step> steps_;
};

}  // namespace transformer
