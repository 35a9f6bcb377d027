#include <transformer/jinja/value.hpp>

#include <algorithm>

#include <transformer/jinja/operators.hpp>

namespace transformer::jinja {

namespace {
int nesting_of_items(const Items& items) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.nesting());
  return deepest + 1;
}
}  // namespace

Value Value::undefined(std::string why) { return Value(Data(Undefined{std::make_shared<const std::string>(std::move(why))})); }

Value Value::text(std::string value) { return Value(Data(std::make_shared<const std::string>(std::move(value)))); }

Value Value::markup(const Value& text) { return Value(Data(Markup{std::make_shared<const std::string>(text.as_text())})); }

Value Value::list(Items items) {
  const int nesting = nesting_of_items(items);
  return Value(Data(std::make_shared<const List>(List{std::move(items), nesting})));
}

Value Value::tuple(Items items) {
  const int nesting = nesting_of_items(items);
  return Value(Data(std::make_shared<const Tuple>(Tuple{std::move(items), nesting})));
}

Value Value::dict(Entries entries) {
  int deepest = 0;
  for (const auto& [key, value] : entries) deepest = std::max({deepest, key.nesting(), value.nesting()});
  return Value(Data(std::make_shared<const Dict>(Dict{std::move(entries), deepest + 1})));
}

Value Value::generator(Items items) { return Value(Data(std::make_shared<Generator>(Generator{std::move(items)}))); }

Value Value::function(std::string name, std::function<Value(Run&, const Arguments&)> call) {
  return Value(Data(std::make_shared<const Function>(Function{std::move(name), std::move(call)})));
}

const std::string& Value::as_text() const {
  return is(Kind::markup) ? *std::get<Markup>(data_).text : *std::get<std::shared_ptr<const std::string>>(data_);
}

const Items& Value::items() const {
  return is(Kind::tuple) ? std::get<std::shared_ptr<const Tuple>>(data_)->items : std::get<std::shared_ptr<const List>>(data_)->items;
}

int Value::nesting() const {
  switch (kind()) {
    case Kind::list:
      return std::get<std::shared_ptr<const List>>(data_)->nesting;
    case Kind::tuple:
      return std::get<std::shared_ptr<const Tuple>>(data_)->nesting;
    case Kind::dict:
      return as_dict().nesting;
    case Kind::generator:
      return nesting_of_items(as_generator().items);
    default:
      return 0;
  }
}

const char* Value::type_name() const {
  static constexpr const char* names[] = {"undefined", "none",  "bool", "int",       "float",     "str",  "safe str",
                                          "list",      "tuple", "dict", "generator", "namespace", "loop", "function"};
  return names[data_.index()];
}

const Value* Dict::find(const Value& key) const {
  for (const auto& [name, value] : entries)
    if (is_same_key(name, key)) return &value;
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries)
    if (name.is_text() && name.as_text() == key) return &value;
  return nullptr;
}

const Value* Space::find(std::string_view name) const {
  for (const auto& [member, value] : members)
    if (member == name) return &value;
  return nullptr;
}

void Space::set(const std::string& name, Value value) {
  for (auto& [member, old] : members)
    if (member == name) {
      old = std::move(value);
      return;
    }
  members.emplace_back(name, std::move(value));
}

}  // namespace transformer::jinja
