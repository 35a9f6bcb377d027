#pragma once

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>

/// The library's only door to nlohmann-json, made strict: a key that occurs twice and nesting past a limit are errors, as is everything
/// that RFC 8259 does not allow (NaN, comments, bytes that are not UTF-8).

namespace lowrank::inline LOWRANK_ABI::json {

/// Objects keep their keys sorted; so dump(2) writes what Python's json.dumps(indent=2, sort_keys=True) does.
using Json = nlohmann::json;

inline constexpr int max_depth = 64;  ///< objects and arrays in each other

/// Called with the depth (1 in the outermost object) and name of each key, in the order of the text.
using KeyListener = std::function<void(int depth, const std::string& key)>;

namespace detail {
class StrictCallback {
 public:
  StrictCallback(std::string_view operation, std::string_view file, const KeyListener& listener)
      : operation_(operation), file_(file), listener_(listener), keys_(max_depth + 2) {}

  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start)
      check<FormatError>(depth < max_depth, operation_, file_, ": JSON nested more than ", max_depth, " deep; this is no such file");
    if (event == Event::object_start) keys_[static_cast<std::size_t>(depth) + 1].clear();
    if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      check<FormatError>(keys_[static_cast<std::size_t>(depth)].insert(key).second, operation_, file_, ": the JSON key ", name_text(key),
                         " occurs twice; keep one of them");
      if (listener_) listener_(depth, key);
    }
    return true;
  }

 private:
  std::string_view operation_, file_;
  const KeyListener& listener_;
  std::vector<std::set<std::string>> keys_;
};
}  // namespace detail

/// Parses text that must be one JSON value. Throws FormatError "[operation] file: not valid JSON …".
inline Json parse(std::string_view text, std::string_view operation, std::string_view file, const KeyListener& listener = {}) {
  detail::StrictCallback callback(operation, file, listener);
  try {
    return Json::parse(text, std::ref(callback));
  } catch (const Json::exception& error) {
    constexpr std::size_t longest = 200;  // the message repeats the offending token, however long
    fail<FormatError>(operation, file, ": not valid JSON: ", std::string_view(error.what()).substr(0, longest),
                      "; the file is damaged or not of this format");
  }
}

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
inline std::optional<Index> as_index(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto number = value.get<std::uint64_t>();
  if (number > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) return std::nullopt;
  return static_cast<Index>(number);
}

/// The member of that name, or null. This and the next say with few templates what nlohmann-json's own operators do: each of those costs a
/// compiler as much as a small header.
inline Json member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? Json() : *found;
}

/// Whether a value is that text, or one of them.
inline bool is_text(const Json& value, std::initializer_list<std::string_view> texts) {
  return value.is_string() && std::find(texts.begin(), texts.end(), value.get_ref<const std::string&>()) != texts.end();
}

/// The start of a value's text, for errors.
inline std::string excerpt(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 80 ? text.substr(0, 80) + "…" : text;
}

}  // namespace lowrank::inline LOWRANK_ABI::json
