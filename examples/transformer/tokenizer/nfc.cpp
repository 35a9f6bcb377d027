#include <transformer/tokenizer/nfc.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include <transformer/tokenizer/unicode_table.hpp>
#include <transformer/tokenizer/utf8.hpp>

namespace transformer {

namespace {

/// The tables of form C, and the three passes that use them.
class Nfc {
 public:
  Nfc() {
    std::size_t value = 0;
    for (const auto& [first, count] : unicode::single_runs)
      for (unsigned i = 0; i < count; ++i) decompositions_[first + i] = {unicode::singles[value++], 0};
    value = 0;
    for (const auto& [first, count] : unicode::pair_runs) {
      for (unsigned i = 0; i < count; ++i) {
        const unicode::Pair pair = unicode::pairs[value++];
        decompositions_[first + i] = pair;
        compositions_[key(pair.first, pair.second)] = first + i;
      }
    }
    for (const auto& [first, count] : unicode::excluded_runs)
      for (unsigned i = 0; i < count; ++i) {
        const unicode::Pair pair = decompositions_.at(first + i);
        compositions_.erase(key(pair.first, pair.second));
      }
    for (const auto& [first, last, combining_class] : unicode::combining_runs)
      for (char32_t c = first; c <= last; ++c) classes_[c] = combining_class;
  }

  std::string operator()(std::string_view text) const {
    std::string result;
    std::vector<char32_t> characters;
    for (std::size_t position = 0; position < text.size();) {
      const Utf8Step step = utf8_step(text, position);
      if (step.kind == Utf8Step::Kind::valid) {
        decompose(step.code_point, characters);
      } else {
        flush(characters, result);
        result += text.substr(position, step.length);
      }
      position += step.length;
    }
    flush(characters, result);
    return result;
  }

 private:
  // Hangul: a syllable is lead, vowel and perhaps tail, numbered in that order (The Unicode Standard, section 3.12).
  static constexpr char32_t lead = 0x1100, vowel = 0x1161, tail = 0x11A7, syllable = 0xAC00;
  static constexpr char32_t leads = 19, vowels = 21, tails = 28, syllables = leads * vowels * tails;

  static std::uint64_t key(char32_t first, char32_t second) { return static_cast<std::uint64_t>(first) << 32 | second; }

  unsigned char combining_class(char32_t c) const {
    const auto found = c < 0x300 ? classes_.end() : classes_.find(c);
    return found == classes_.end() ? static_cast<unsigned char>(0) : found->second;
  }

  void decompose(char32_t c, std::vector<char32_t>& out) const {
    if (c < 0xC0) return out.push_back(c);
    if (c >= syllable && c < syllable + syllables) {
      const char32_t index = c - syllable;
      out.push_back(lead + index / (vowels * tails));
      out.push_back(vowel + index / tails % vowels);
      if (index % tails != 0) out.push_back(tail + index % tails);
      return;
    }
    const auto found = decompositions_.find(c);
    if (found == decompositions_.end()) return out.push_back(c);
    decompose(found->second.first, out);
    if (found->second.second != 0) decompose(found->second.second, out);
  }

  /// The character that two make, or 0.
  char32_t compose(char32_t first, char32_t second) const {
    if (first >= lead && first < lead + leads && second >= vowel && second < vowel + vowels)
      return syllable + ((first - lead) * vowels + (second - vowel)) * tails;
    if (first >= syllable && first < syllable + syllables && (first - syllable) % tails == 0 && second > tail && second < tail + tails)
      return first + (second - tail);
    const auto found = compositions_.find(key(first, second));
    return found == compositions_.end() ? 0 : found->second;
  }

  void flush(std::vector<char32_t>& characters, std::string& result) const {
    for (auto begin = characters.begin(); begin != characters.end();) {  // marks between two starters: stable order by class
      const auto starter = [&](char32_t c) { return combining_class(c) == 0; };
      begin = std::find_if_not(begin, characters.end(), starter);
      const auto end = std::find_if(begin, characters.end(), starter);
      std::stable_sort(begin, end, [&](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
      begin = end;
    }
    std::vector<char32_t> composed;
    std::size_t starter = none;
    int last_class = -1;  // of the last character kept after the starter; one of the same class or a higher one blocks
    for (const char32_t c : characters) {
      const int own_class = combining_class(c);
      const char32_t whole = starter != none && last_class < own_class ? compose(composed[starter], c) : 0;
      if (whole != 0) {
        composed[starter] = whole;
        continue;
      }
      if (own_class == 0) {
        starter = composed.size();
        last_class = -1;
      } else {
        last_class = own_class;
      }
      composed.push_back(c);
    }
    for (const char32_t c : composed) append_utf8(result, c);
    characters.clear();
  }

  static constexpr std::size_t none = static_cast<std::size_t>(-1);
  std::unordered_map<char32_t, unicode::Pair> decompositions_;
  std::unordered_map<std::uint64_t, char32_t> compositions_;
  std::unordered_map<char32_t, unsigned char> classes_;
};

}  // namespace

std::string to_nfc(std::string_view text) {
  const auto ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), ascii)) return std::string(text);
  static const Nfc nfc;
  return nfc(text);
}

}  // namespace transformer
