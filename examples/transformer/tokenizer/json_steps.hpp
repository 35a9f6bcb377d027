#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/error.hpp>
#include <lowrank/io/json.hpp>

#include <transformer/tokenizer/named_pretokenizers.hpp>
#include <transformer/tokenizer/normalizer.hpp>
#include <transformer/tokenizer/pretokenizer.hpp>

/// The steps that tokenizer.json describes around its model: normalizer, pre_tokenizer, post_processor, decoder. A step that cannot be done
/// exactly is refused by its name.
namespace transformer::json_tokenizer {

using lowrank::check;
using lowrank::fail;
using lowrank::FormatError;
using lowrank::IoError;
using lowrank::json::Json;

inline const Json& member(const Json& object, const char* key) {
  check<FormatError>(object.is_object() && object.contains(key), "tokenizer", "tokenizer.json lacks \"", key, "\" in ",
                     lowrank::json::excerpt(object));
  return object.at(key);
}

inline std::string text_of(const Json& object, const char* key) {
  const Json& value = member(object, key);
  check<FormatError>(value.is_string(), "tokenizer", "\"", key, "\" is ", lowrank::json::excerpt(value), " but must be a string");
  return value.get<std::string>();
}

/// The value of a key, or the fallback when it is absent or null.
template <class T>
T option(const Json& object, const char* key, T fallback) {
  check<FormatError>(object.is_object(), "tokenizer", "tokenizer.json has ", lowrank::json::excerpt(object), " where an object must be");
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  const bool fits = std::is_same_v<T, bool> ? found->is_boolean() : found->is_string();
  check<FormatError>(fits, "tokenizer", "\"", key, "\" is ", lowrank::json::excerpt(*found), ", which is not of the type it must have");
  return found->get<T>();
}

/// Calls visit(step) for a step, or for each of a Sequence's.
template <class Visit>
void for_each_step(const Json& step, const char* list, Visit&& visit, int depth = 0) {
  if (step.is_null()) return;
  check<FormatError>(depth < 16, "tokenizer", "tokenizer.json nests sequences more than 16 deep");
  if (text_of(step, "type") != "Sequence") return visit(step);
  const Json& steps = member(step, list);
  check<FormatError>(steps.is_array(), "tokenizer", "\"", list, "\" must be an array");
  for (const Json& inner : steps) for_each_step(inner, list, visit, depth + 1);
}

inline const Json& part(const Json& root, const char* key) {
  static const Json none;
  return root.contains(key) ? root.at(key) : none;
}

[[noreturn]] inline void refuse(const char* what, const Json& step, std::string_view known) {
  fail<FormatError>("tokenizer", "the ", what, " ", lowrank::json::excerpt(step), " is not one that is done here; known are ", known);
}

inline void add_normalizer(const Json& root, Normalizer& normalizer) {
  for_each_step(part(root, "normalizer"), "normalizers", [&](const Json& step) {
    const std::string type = text_of(step, "type");
    if (type == "NFC")
      normalizer.add_nfc();
    else if (type == "Prepend")
      normalizer.add_prefix(text_of(step, "prepend"));
    else if (type == "Replace" && member(step, "pattern").is_object() && step.at("pattern").contains("String"))
      normalizer.add_replacement(text_of(step.at("pattern"), "String"), text_of(step, "content"));
    else
      refuse("normalizer", step, "NFC, Prepend, Replace of a string, and Sequence");
  });
}

inline SplitBehavior behavior_of(const Json& step) {
  const std::string name = text_of(step, "behavior");
  constexpr std::pair<std::string_view, SplitBehavior> names[]{{"Isolated", SplitBehavior::isolated},
                                                               {"Removed", SplitBehavior::removed},
                                                               {"Contiguous", SplitBehavior::contiguous},
                                                               {"MergedWithPrevious", SplitBehavior::merged_with_previous},
                                                               {"MergedWithNext", SplitBehavior::merged_with_next}};
  for (const auto& [known, behavior] : names)
    if (name == known) return behavior;
  refuse("split behavior", step, "Isolated, Removed, Contiguous, MergedWithPrevious and MergedWithNext");
}

inline Pattern pattern_of(const Json& step) {
  const Json& pattern = member(step, "pattern");
  check<FormatError>(pattern.is_object() && (pattern.contains("Regex") || pattern.contains("String")), "tokenizer", "the pattern ",
                     lowrank::json::excerpt(pattern), " must be a Regex or a String");
  if (pattern.contains("Regex")) return Pattern(text_of(pattern, "Regex"));
  return Pattern(text_of(pattern, "String"), Pattern::Kind::literal);
}

inline void add_byte_level(const Json& step, PreTokenizer& pre) {
  if (option(step, "add_prefix_space", true)) pre.add_prefix(" ");
  if (option(step, "use_regex", true)) pre.add_split(Pattern(patterns::gpt2));
  pre.add_byte_level();
}

inline void add_metaspace(const Json& step, PreTokenizer& pre) {
  const std::string replacement = option<std::string>(step, "replacement", "▁");
  check<FormatError>(replacement == "▁", "tokenizer", "Metaspace writes a blank as ", lowrank::name_text(replacement),
                     "; ▁ is the one that is known");
  const std::string scheme = option<std::string>(step, "prepend_scheme", option(step, "add_prefix_space", true) ? "always" : "never");
  check<FormatError>(scheme == "always" || scheme == "first" || scheme == "never", "tokenizer", "Metaspace has the prepend_scheme ",
                     lowrank::name_text(scheme), "; known are always, first and never");
  pre.add_replacement(" ", replacement);
  if (scheme != "never") pre.add_prefix(replacement, scheme == "first");
  if (option(step, "split", true)) pre.add_split(Pattern(replacement, Pattern::Kind::literal), SplitBehavior::merged_with_next);
}

inline void add_pre_tokenizer(const Json& root, PreTokenizer& pre) {
  for_each_step(part(root, "pre_tokenizer"), "pretokenizers", [&](const Json& step) {
    const std::string type = text_of(step, "type");
    if (type == "ByteLevel")
      add_byte_level(step, pre);
    else if (type == "Split")
      pre.add_split(pattern_of(step), behavior_of(step), option(step, "invert", false));
    else if (type == "Digits")
      pre.add_split(Pattern(patterns::digit),
                    option(step, "individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous);
    else if (type == "Punctuation")
      pre.add_split(Pattern(patterns::punctuation), step.contains("behavior") ? behavior_of(step) : SplitBehavior::isolated);
    else if (type == "Whitespace")
      pre.add_split(Pattern(R"(\w+|[^\w\s]+)"), SplitBehavior::removed, true);
    else if (type == "WhitespaceSplit")
      pre.add_split(Pattern(R"(\s)"), SplitBehavior::removed);
    else if (type == "Metaspace")
      add_metaspace(step, pre);
    else
      refuse("pre-tokenizer", step, "ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace and Sequence");
  });
}

/// What TemplateProcessing puts before and after a text.
inline void read_template(const Json& step, std::vector<std::int32_t>& prefix, std::vector<std::int32_t>& suffix) {
  const Json& single = member(step, "single");
  check<FormatError>(single.is_array(), "tokenizer", "the template \"single\" must be an array");
  std::vector<std::int32_t>* side = &prefix;
  for (const Json& piece : single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      side = &suffix;
      continue;
    }
    const std::string name = text_of(member(piece, "SpecialToken"), "id");
    const Json& ids = member(member(member(step, "special_tokens"), name.c_str()), "ids");
    check<FormatError>(ids.is_array(), "tokenizer", "the template's \"ids\" must be an array");
    for (const Json& id : ids) {
      const auto number = lowrank::json::as_index(id);
      check<FormatError>(number && *number < 1 << 24, "tokenizer", "the template has the id ", lowrank::json::excerpt(id));
      side->push_back(static_cast<std::int32_t>(*number));
    }
  }
}

inline void read_post_processor(const Json& root, std::vector<std::int32_t>& prefix, std::vector<std::int32_t>& suffix) {
  for_each_step(part(root, "post_processor"), "processors", [&](const Json& step) {
    const std::string type = text_of(step, "type");
    if (type == "TemplateProcessing")
      read_template(step, prefix, suffix);
    else if (type != "ByteLevel")
      refuse("post-processor", step, "TemplateProcessing, ByteLevel and Sequence");
  });
}

/// Whether decoding takes away the blank before the text.
inline bool strips_leading_space(const Json& root) {
  bool strips = false;
  for_each_step(part(root, "decoder"), "decoders", [&](const Json& step) {
    const std::string type = text_of(step, "type");
    if (type == "Strip" && option<std::string>(step, "content", "") == " ") strips = part(step, "start") != Json(0);
    if (type == "Metaspace") strips = option<std::string>(step, "prepend_scheme", "always") != "never";
  });
  return strips;
}

}  // namespace transformer::json_tokenizer
