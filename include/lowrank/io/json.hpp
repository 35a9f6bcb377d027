#pragma once

#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

/// The library's only door to nlohmann-json, made strict: a key that occurs twice and nesting past a limit are errors, as is everything
/// that RFC 8259 does not allow (NaN, comments, bytes that are not UTF-8).

namespace lowrank::inline LOWRANK_ABI::json {

/// Objects keep their keys sorted; so dump(2) writes what Python's json.dumps(indent=2, sort_keys=True) does.
using Json = nlohmann::json;

inline constexpr int max_depth = 64;  ///< objects and arrays in each other

/// Called with the depth (1 in the outermost object) and name of each key, in the order of the text.
using KeyListener = std::function<void(int depth, const std::string& key)>;

inline constexpr std::size_t max_values = std::size_t{1} << 24;  ///< of one text, objects and arrays among them

/// Gets a member of the outermost object, whole.
using MemberHandler = std::function<void(const std::string& key, const Json& value)>;

/// Parses text that must be one JSON value. Throws FormatError "[operation] file: not valid JSON …". Cost: linear in the text.
Json parse(std::string_view text, std::string_view operation, std::string_view file, const KeyListener& listener = {});

/// Parses text that must be one JSON object, of which only one member is kept at a time: for headers with very many. `most` values a
/// member, itself among them. Throws as parse does.
void parse_members(std::string_view text, std::string_view operation, std::string_view file, std::size_t most, const MemberHandler& handler,
                   const KeyListener& listener = {});

/// The value as text: on one line, or a member a line, indented so far; `ascii` escapes what is not ASCII. Throws Json::exception for bytes
/// that are not UTF-8.
std::string text_of(const Json& value, int indent = -1, bool ascii = false);

/// The keys of the outermost object's member of that name, in the order of the text.
struct MemberKeys {
  std::string member;
  std::vector<std::string> keys;
  bool inside = false;

  void operator()(int depth, const std::string& key) {
    if (depth == 1) inside = key == member;
    if (depth == 2 && inside) keys.push_back(key);
  }
};

/// A whole number that is not negative and fits Index, or nothing: -1, 1.0, 1e3, "1" and 2^63 are none.
std::optional<Index> as_index(const Json& value);

/// The member of that name, or null. This and the next say with few templates what nlohmann-json's own operators do: each of those costs a
/// compiler as much as a small header.
Json member(const Json& object, const char* key);

/// Whether a value is that text, or one of them.
bool is_text(const Json& value, std::initializer_list<std::string_view> texts);

/// The value on one line for people: what is not UTF-8 becomes U+FFFD.
std::string readable(const Json& value);

/// The start of that, made when an error is printed: a value may be as large as its file. It refers to the value.
struct Excerpt {
  const Json& value;
  std::string operator()() const;
};
inline Excerpt excerpt(const Json& value) { return {value}; }  ///< Of a value that outlives the message.

}  // namespace lowrank::inline LOWRANK_ABI::json

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/json.inl>
#endif
