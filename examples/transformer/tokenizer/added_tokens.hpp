#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <transformer/tokenizer/utf8.hpp>
#include <lowrank/error.hpp>

namespace transformer {

/// A token that is found in the text as it stands, before anything else is done to it: an end-of-text mark, a role of a chat.
struct AddedToken {
  std::int32_t id = 0;
  std::string text;
  bool special = false;      ///< found only where the caller lets the text hold special tokens
  bool lstrip = false;       ///< takes the blanks on its left with it
  bool rstrip = false;       ///< takes the blanks on its right with it
  bool single_word = false;  ///< not inside a word
  bool normalized = false;   ///< looked for after normalization
};

/// Bytes [first, second) of a text.
using TextRange = std::pair<std::size_t, std::size_t>;

/// Where a text may hold special tokens: nowhere, or everywhere but in some ranges.
struct SpecialPlaces {
  bool allowed = false;
  std::span<const TextRange> except = {};

  bool hold(std::size_t begin, std::size_t end) const {
    return allowed &&
           std::none_of(except.begin(), except.end(), [&](const TextRange& range) { return begin < range.second && range.first < end; });
  }
};

/// Finds added tokens: the leftmost, and of those that begin there the longest.
class AddedTokens {
 public:
  struct Segment {
    std::size_t begin, end;
    std::int32_t id;  ///< negative: plain text
  };

  /// Of two tokens with the same text the first counts. Throws FormatError for one that is too long.
  void add(AddedToken token) {
    if (token.text.empty()) return;
    lowrank::check<lowrank::FormatError>(token.text.size() <= longest, "tokenizer", "an added token has ", token.text.size(), " bytes; ",
                                         longest, " at most are possible");
    begins_[static_cast<unsigned char>(token.text[0])] = true;
    std::uint32_t node = 0;
    for (const char byte : token.text) {
      const auto [edge, fresh] = edges_.try_emplace(key(node, byte), static_cast<std::uint32_t>(ends_.size()));
      if (fresh) ends_.push_back(no_token);
      node = edge->second;
    }
    if (ends_[node] != no_token) return;
    ends_[node] = static_cast<std::uint32_t>(tokens_.size());
    tokens_.push_back(std::move(token));
  }

  /// The text cut into added tokens and what lies between them. Cost: O(bytes times the longest token) at worst.
  std::vector<Segment> split(std::string_view text, const SpecialPlaces& special) const {
    std::vector<Segment> segments;
    std::size_t done = 0;
    for (std::size_t position = 0; position < text.size();) {
      const AddedToken* token = longest_at(text, position, special);
      if (token == nullptr) {
        ++position;
        continue;
      }
      std::size_t begin = position, end = position + token->text.size();
      position = end;
      if (token->single_word && (ends_with_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) continue;
      if (begin < done) continue;  // inside the blanks that the one before took
      if (token->lstrip)
        while (begin > done && blank_before(text, begin) > 0 && blank_before(text, begin) <= begin - done)
          begin -= blank_before(text, begin);
      if (token->rstrip)
        while (end < text.size() && blank_at(text, end) > 0) end += blank_at(text, end);
      if (done < begin) segments.push_back({done, begin, -1});
      segments.push_back({begin, end, token->id});
      done = end;
      if (position < done) position = done;
    }
    if (done < text.size()) segments.push_back({done, text.size(), -1});
    return segments;
  }

  /// The first special token that the text spells out, or null.
  const AddedToken* first_special(std::string_view text) const {
    for (std::size_t position = 0; position < text.size(); ++position)
      if (const AddedToken* token = longest_at(text, position, {true}); token != nullptr && token->special) return token;
    return nullptr;
  }

  /// Those that a text holds only where the caller lets it.
  std::vector<std::string> special() const {
    std::vector<std::string> texts;
    for (const AddedToken& token : tokens_)
      if (token.special) texts.push_back(token.text);
    return texts;
  }

 private:
  static constexpr std::size_t longest = 1024;  // keeps a search linear in the text
  static constexpr std::uint32_t no_token = 0xFFFFFFFF;

  static std::uint64_t key(std::uint32_t node, char byte) {
    return static_cast<std::uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
  }

  const AddedToken* longest_at(std::string_view text, std::size_t position, const SpecialPlaces& special) const {
    const AddedToken* best = nullptr;
    if (!begins_[static_cast<unsigned char>(text[position])]) return best;
    std::uint32_t node = 0;
    for (std::size_t end = position; end < text.size(); ++end) {
      const auto edge = edges_.find(key(node, text[end]));
      if (edge == edges_.end()) break;
      node = edge->second;
      if (ends_[node] == no_token) continue;
      const AddedToken& token = tokens_[ends_[node]];
      if (!token.special || special.hold(position, end + 1)) best = &token;
    }
    return best;
  }

  static bool is_blank(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
  }
  /// Bytes of the blank that begins at `position`, 0 if there is none.
  static std::size_t blank_at(std::string_view text, std::size_t position) {
    const Utf8Step step = utf8_step(text, position);
    return step.kind == Utf8Step::Kind::valid && is_blank(step.code_point) ? step.length : 0;
  }
  /// Bytes of the blank that ends at `position`, 0 if there is none.
  static std::size_t blank_before(std::string_view text, std::size_t position) {
    for (std::size_t length = 1; length <= 3 && length <= position; ++length)
      if (blank_at(text.substr(0, position), position - length) == length) return length;
    return 0;
  }
  // Words here are ASCII letters, digits, the low line and everything beyond ASCII that is no blank.
  static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (c & 0x80);
  }
  static bool ends_with_word(std::string_view text) {
    return !text.empty() && is_word(text.back()) && blank_before(text, text.size()) == 0;
  }
  static bool begins_with_word(std::string_view text) { return !text.empty() && is_word(text.front()) && blank_at(text, 0) == 0; }

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};                          // whether some token begins with the byte
  std::vector<std::uint32_t> ends_{no_token};               // the token that ends at each node of the trie
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;  // (node, byte) to node
};

}  // namespace transformer
