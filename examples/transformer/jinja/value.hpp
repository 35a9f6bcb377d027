#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// A value of a template: what Python would hold, as far as chat templates see it. Texts, lists and mappings never change once made, so
/// copies share them; a namespace alone can be written to.

namespace transformer::jinja {

class Run;
class Value;

enum class Kind { undefined, none, boolean, integer, real, text, markup, list, tuple, dict, generator, space, loop, function };

using Items = std::vector<Value>;
using Entries = std::vector<std::pair<Value, Value>>;  // in the order of insertion

/// What a call was given.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Undefined {
  std::shared_ptr<const std::string> why;
};
struct None {};
/// What is marked safe for HTML. Python escapes whatever joins it, so it can be printed and nothing else.
struct Markup {
  std::shared_ptr<const std::string> text;
};
struct List {
  Items items;
  int nesting = 1;  ///< lists and mappings in each other
};
struct Tuple {
  Items items;
  int nesting = 1;
};
struct Dict {
  Entries entries;
  int nesting = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};
/// What a filter hands on item by item: true whatever it holds, without length or index, and empty once it was gone through.
struct Generator {
  Items items;
  std::size_t next = 0;
};
struct Space {
  std::vector<std::pair<std::string, Value>> members;

  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};
/// The variable `loop` of a for statement.
struct Loop;
struct Function {
  std::string name;
  std::function<Value(Run&, const Arguments&)> call;
};

class Value {
 public:
  Value() : data_(None{}) {}

  /// `why`: what an error says when the value is used as if it were one.
  static Value undefined(std::string why);
  static Value boolean(bool value) { return Value(Data(value)); }
  static Value integer(std::int64_t value) { return Value(Data(value)); }
  static Value real(double value) { return Value(Data(value)); }
  static Value text(std::string value);
  static Value markup(const Value& text);
  static Value list(Items items);
  static Value tuple(Items items);
  static Value dict(Entries entries);
  static Value generator(Items items);
  static Value space(std::shared_ptr<Space> space) { return Value(Data(std::move(space))); }
  static Value loop(std::shared_ptr<Loop> loop) { return Value(Data(std::move(loop))); }
  static Value function(std::string name, std::function<Value(Run&, const Arguments&)> call);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::undefined); }
  bool is_text() const { return is(Kind::text); }
  bool is_dict() const { return is(Kind::dict); }
  bool is_sequence() const { return is(Kind::list) || is(Kind::tuple); }
  bool is_whole() const { return is(Kind::boolean) || is(Kind::integer); }
  bool is_number() const { return is_whole() || is(Kind::real); }

  const std::string& why_undefined() const { return *std::get<Undefined>(data_).why; }
  bool as_boolean() const { return std::get<bool>(data_); }
  std::int64_t as_integer() const { return is(Kind::boolean) ? as_boolean() : std::get<std::int64_t>(data_); }
  double as_real() const { return is(Kind::real) ? std::get<double>(data_) : static_cast<double>(as_integer()); }
  /// Of a text or markup.
  const std::string& as_text() const;
  /// Of a list or tuple.
  const Items& items() const;
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Generator& as_generator() const { return *std::get<std::shared_ptr<Generator>>(data_); }
  Space& as_space() const { return *std::get<std::shared_ptr<Space>>(data_); }
  Loop& as_loop() const { return *std::get<std::shared_ptr<Loop>>(data_); }
  const Function& as_function() const { return *std::get<std::shared_ptr<const Function>>(data_); }

  /// Lists and mappings in each other.
  int nesting() const;
  /// What Python calls the type.
  const char* type_name() const;

 private:
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const std::string>, Markup,
                            std::shared_ptr<const List>, std::shared_ptr<const Tuple>, std::shared_ptr<const Dict>,
                            std::shared_ptr<Generator>, std::shared_ptr<Space>, std::shared_ptr<Loop>, std::shared_ptr<const Function>>;
  explicit Value(Data data) : data_(std::move(data)) {}

  Data data_;
};

struct Loop {
  Items items;
  std::size_t index = 0;
  Items last_seen = {};  ///< what changed() was given before
};

}  // namespace transformer::jinja
