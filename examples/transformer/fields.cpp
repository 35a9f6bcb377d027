#include <transformer/fields.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/error.hpp>

namespace transformer {

namespace {

using Json = Fields::Json;
namespace gguf = lowrank::gguf;

Json to_json(const gguf::Value& value);

template <class T>
Json to_json_item(const T& item) {
  if constexpr (std::is_same_v<T, gguf::Array>)
    return to_json(gguf::Value(item));
  else
    return Json(item);
}

Json to_json(const gguf::Value& value) {
  const auto of_array = [](const auto& items) {
    Json list = Json::array();
    for (const auto& item : items) list.push_back(to_json_item<typename std::decay_t<decltype(items)>::value_type>(item));
    return list;
  };
  if (const auto* array = std::get_if<gguf::Array>(&value)) return std::visit(of_array, array->items);
  return std::visit(
      [](const auto& item) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(item)>, gguf::Array>)
          return Json();
        else
          return Json(item);
      },
      value);
}

}  // namespace

Fields::Fields(Json object, std::string operation, std::string file, std::string prefix)
    : object_(std::move(object)), operation_(std::move(operation)), file_(std::move(file)), prefix_(std::move(prefix)) {
  lowrank::check<lowrank::FormatError>(object_.is_object(), operation_, file_, " is not a JSON object");
}

Fields Fields::of_gguf(const gguf::File& file, const std::string& architecture) {
  const std::string prefix = architecture + ".";
  Json object = Json::object();
  for (const auto& [key, value] : file.metadata())
    if (key.starts_with(prefix)) object[key.substr(prefix.size())] = to_json(value);
  return Fields(std::move(object), "load_gguf", file.path().string(), prefix);
}

const Json* Fields::find(const std::string& key) const {
  read_.insert(key);
  const auto member = object_.find(key);
  return member == object_.end() || member->is_null() ? nullptr : &*member;
}

const Json& Fields::scalar(const std::string& key, const Json& value) const {
  if (!value.is_array()) return value;
  const bool equal = !value.empty() && std::all_of(value.begin(), value.end(), [&](const Json& item) { return item == value.front(); });
  if (!equal) refuse(key, " differs by layer (", lowrank::json::excerpt(value), "); one value for all layers is supported");
  return value.front();
}

std::optional<Index> Fields::size(const std::string& key) const {
  const Json* const value = find(key);
  if (!value) return std::nullopt;
  const auto number = lowrank::json::as_index(scalar(key, *value));
  if (!number) refuse(key, " is ", lowrank::json::excerpt(*value), "; it must be a whole number");
  return number;
}

std::optional<double> Fields::number(const std::string& key) const {
  const Json* const value = find(key);
  if (!value) return std::nullopt;
  if (!scalar(key, *value).is_number()) refuse(key, " is ", lowrank::json::excerpt(*value), "; it must be a number");
  const double number = scalar(key, *value).get<double>();
  if (!std::isfinite(number)) refuse(key, " is ", number, "; it must be finite");
  return number;
}

std::optional<bool> Fields::flag(const std::string& key) const {
  const Json* const value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) refuse(key, " is ", lowrank::json::excerpt(*value), "; it must be true or false");
  return value->get<bool>();
}

std::optional<std::string> Fields::text(const std::string& key) const {
  const Json* const value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) refuse(key, " is ", lowrank::json::excerpt(*value), "; it must be a string");
  return value->get<std::string>();
}

std::optional<std::vector<double>> Fields::numbers(const std::string& key) const {
  const Json* const value = find(key);
  if (!value) return std::nullopt;
  std::vector<double> result;
  const auto append = [&](const Json& item) {
    if (!item.is_number() && !item.is_boolean()) refuse(key, " is ", lowrank::json::excerpt(*value), "; it must be a list of numbers");
    result.push_back(item.is_boolean() ? double(item.get<bool>()) : item.get<double>());
  };
  if (!value->is_array()) refuse(key, " is ", lowrank::json::excerpt(*value), "; it must be a list of numbers");
  std::for_each(value->begin(), value->end(), append);
  return result;
}

std::optional<Fields> Fields::object(const std::string& key) const {
  const Json* const value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_object()) refuse(key, " is ", lowrank::json::excerpt(*value), "; it must be an object");
  return Fields(*value, operation_, file_ + ": " + key);
}

std::vector<std::string> Fields::unread() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object_.items())
    if (!read_.contains(key)) keys.push_back(prefix_ + key);
  return keys;
}

}  // namespace transformer
