#include <transformer/tokenizer/normalizer.hpp>

#include <lowrank/error.hpp>

#include <transformer/tokenizer/nfc.hpp>

namespace transformer {

namespace {

std::string replace(std::string_view text, std::string_view from, std::string_view to, std::size_t longest) {
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

}  // namespace

void Normalizer::add_replacement(std::string from, std::string to) {
  lowrank::check<lowrank::FormatError>(!from.empty(), "tokenizer", "a normalizer replaces an empty string; name what it replaces");
  steps_.push_back({std::move(from), std::move(to), false});
}

std::string Normalizer::operator()(std::string_view text) const {
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

}  // namespace transformer
