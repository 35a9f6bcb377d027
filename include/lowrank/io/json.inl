#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/bytes.hpp>

namespace lowrank::inline LOWRANK_ABI::json {

namespace detail {

/// Builds a value from nlohmann-json's events, strictly, in time that grows with the text alone. With a member handler the outermost
/// object's members are handed over one by one instead of being kept.
class TreeBuilder {
 public:
  TreeBuilder(std::string_view operation, std::string_view file, const KeyListener& listener, const MemberHandler* members,
              std::size_t most)
      : operation_(operation), file_(file), listener_(listener), members_(members), most_(most) {}

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(Json::number_integer_t value) { return put(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return put(value); }
  bool number_float(Json::number_float_t value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }  // no text has one
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    const int depth = static_cast<int>(open_.size());
    const bool is_outer = depth == 1 && members_;
    const bool fresh = is_outer ? names_.insert(name).second : !open_.back()->contains(name);
    check<FormatError>(fresh, operation_, file_, ": the JSON key ", name_text(name), " occurs twice; keep one of them");
    if (listener_) listener_(depth, name);
    key_ = std::move(name);
    if (is_outer) member_ = key_, count_ = 0;
    return true;
  }
  template <class Exception>
  bool parse_error(std::size_t, const std::string&, const Exception& error) {
    constexpr std::size_t longest = 200;  // the message repeats the offending token, however long
    fail<FormatError>(operation_, file_, ": not valid JSON: ", std::string_view(error.what()).substr(0, longest),
                      "; the file is damaged or not of this format");
  }
  Json take() { return std::move(root_); }

 private:
  Json& add(Json value) {
    const auto holder = [this] { return members_ ? name_text(member_) : std::string("the JSON"); };
    check<FormatError>(++count_ <= most_, operation_, file_, ": ", holder, " holds more than ", most_, " values; this is no such file");
    if (open_.empty()) return root_ = std::move(value);
    Json& into = *open_.back();
    if (into.is_object()) return into[key_] = std::move(value);
    into.push_back(std::move(value));
    return into.back();
  }
  bool put(Json value) {
    add(std::move(value));
    return hand_over();
  }
  bool open(Json value) {
    check<FormatError>(static_cast<int>(open_.size()) < max_depth, operation_, file_, ": JSON nested more than ", max_depth,
                       " deep; this is no such file");
    open_.push_back(&add(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return hand_over();
  }
  /// After a value that is whole: a member of the outermost object goes to the handler.
  bool hand_over() {
    if (!members_ || open_.size() != 1 || !root_.is_object() || root_.empty()) return true;
    (*members_)(member_, root_.begin().value());
    root_.clear();
    return true;
  }

  std::string_view operation_, file_;
  const KeyListener& listener_;
  const MemberHandler* members_;
  std::size_t most_, count_ = 0;
  Json root_;
  std::vector<Json*> open_ = {};  // objects and arrays that are not whole yet, each inside the one before
  std::string key_ = {}, member_ = {};
  std::set<std::string, std::less<>> names_ = {};
};

LOWRANK_INLINE void build(std::string_view text, TreeBuilder& builder, std::string_view operation, std::string_view file) {
  const std::size_t zero = text.find('\0');  // nlohmann-json takes one for the end of the text
  check<FormatError>(zero == text.npos, operation, file, ": not valid JSON: a zero byte at ", zero,
                     "; the file is damaged or not of this format");
  Json::sax_parse(text, &builder);
}

}  // namespace detail

LOWRANK_INLINE Json parse(std::string_view text, std::string_view operation, std::string_view file, const KeyListener& listener) {
  detail::TreeBuilder builder(operation, file, listener, nullptr, max_values);
  detail::build(text, builder, operation, file);
  return builder.take();
}

LOWRANK_INLINE void parse_members(std::string_view text, std::string_view operation, std::string_view file, std::size_t most,
                                  const MemberHandler& handler, const KeyListener& listener) {
  detail::TreeBuilder builder(operation, file, listener, &handler, most);
  detail::build(text, builder, operation, file);
  check<FormatError>(builder.take().is_object(), operation, file, " is no JSON object");
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

LOWRANK_INLINE std::string Excerpt::operator()() const {
  const std::string text = readable(value);
  return text.size() > 80 ? text.substr(0, 80) + "…" : text;
}

}  // namespace lowrank::inline LOWRANK_ABI::json
