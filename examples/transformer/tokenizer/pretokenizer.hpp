#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <transformer/tokenizer/normalizer.hpp>
#include <transformer/tokenizer/regex.hpp>

namespace transformer {

/// What becomes of the matches of a splitting pattern (the names are those of tokenizer.json).
enum class SplitBehavior { isolated, removed, contiguous, merged_with_previous, merged_with_next };

/// Cuts a text into the pieces that byte pair merges may not cross.
///
/// A chain of steps, each applied to every piece of the step before. Bytes that are not valid UTF-8 form pieces of their own and pass the
/// steps untouched, so no input fails.
class PreTokenizer {
 public:
  void add_split(Pattern pattern, SplitBehavior behavior = SplitBehavior::isolated, bool invert = false);

  /// From here on patterns see GPT-2's names of the bytes, not the characters.
  void add_byte_level() { byte_level_ = true; }

  /// Puts `prefix` before every piece that does not begin with it; `first_only`: before the piece that begins the text alone.
  void add_prefix(std::string prefix, bool first_only = false);

  /// Puts one string for another in every piece.
  void add_replacement(std::string from, std::string to);

  bool byte_level() const { return byte_level_; }
  bool empty() const { return steps_.empty(); }

  /// Calls visit(piece) for each piece in order. `begins_text`: nothing comes before `text`.
  void split(std::string_view text, bool begins_text, const std::function<void(std::string_view)>& visit) const;

 private:
  struct Step {
    enum class Kind { split, prefix, replacement } kind;
    std::optional<Pattern> pattern;
    SplitBehavior behavior;
    bool flag;  // a split: inverted; a prefix: first piece only
    bool on_byte_names;
    std::string prefix;
    Normalizer replace = {};
  };

  void split_valid(std::string_view text, bool begins_text, const std::function<void(std::string_view)>& visit) const;
  static void apply_split(const Step& step, std::string_view piece, std::vector<std::string_view>& out);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace transformer
