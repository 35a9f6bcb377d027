#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>

#include <lowrank/io/bytes.hpp>

namespace lowrank::inline LOWRANK_ABI::json {

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

LOWRANK_INLINE Json parse(std::string_view text, std::string_view operation, std::string_view file, const KeyListener& listener) {
  detail::StrictCallback callback(operation, file, listener);
  try {
    return Json::parse(text, std::ref(callback));
  } catch (const Json::exception& error) {
    constexpr std::size_t longest = 200;  // the message repeats the offending token, however long
    fail<FormatError>(operation, file, ": not valid JSON: ", std::string_view(error.what()).substr(0, longest),
                      "; the file is damaged or not of this format");
  }
}

LOWRANK_INLINE std::string text_of(const Json& value, int indent, bool ascii) { return value.dump(indent, ' ', ascii); }

LOWRANK_INLINE std::optional<Index> as_index(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto number = value.get<std::uint64_t>();
  if (number > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) return std::nullopt;
  return static_cast<Index>(number);
}

LOWRANK_INLINE Json member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? Json() : *found;
}

LOWRANK_INLINE bool is_text(const Json& value, std::initializer_list<std::string_view> texts) {
  return value.is_string() && std::find(texts.begin(), texts.end(), value.get_ref<const std::string&>()) != texts.end();
}

LOWRANK_INLINE std::string readable(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

LOWRANK_INLINE std::string excerpt(const Json& value) {
  const std::string text = readable(value);
  return text.size() > 80 ? text.substr(0, 80) + "…" : text;
}

}  // namespace lowrank::inline LOWRANK_ABI::json
