#pragma once

/// A model's description as named fields, one reader for config.json and for the metadata of GGUF files: it knows afterwards what nobody
/// has asked for.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/io/gguf.hpp>
#include <lowrank/io/json.hpp>

namespace transformer {

using lowrank::Index;

class Fields {
 public:
  using Json = lowrank::json::Json;

  /// Of a JSON object. operation, file: for errors. prefix: what the file has in front of each key. Throws FormatError for another value.
  Fields(Json object, std::string operation, std::string file, std::string prefix = {});
  /// The metadata of a GGUF file below "ARCHITECTURE.".
  static Fields of_gguf(const lowrank::gguf::File& file, const std::string& architecture);

  /// Whether the key is there, null or not.
  bool has(const std::string& key) const { return object_.contains(key); }
  bool is_empty() const { return object_.empty(); }
  bool is_null(const std::string& key) const { return has(key) && object_.at(key).is_null(); }

  /// The field, or nothing when it is absent or null. Throw FormatError, naming the key, for a value of another type. A list of equal
  /// numbers is that number: one a layer.
  const Json* find(const std::string& key) const;
  std::optional<Index> size(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;
  std::optional<bool> flag(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  std::optional<std::vector<double>> numbers(const std::string& key) const;
  /// An object inside.
  std::optional<Fields> object(const std::string& key) const;

  /// Throws FormatError: "[operation] file: key" and the parts.
  template <class... Parts>
  [[noreturn]] void refuse(const std::string& key, const Parts&... parts) const {
    lowrank::fail<lowrank::FormatError>(operation_, file_, ": ", prefix_ + key, parts...);
  }
  /// Keys that nobody asked for, as the file spells them.
  std::vector<std::string> unread() const;
  const std::string& file() const { return file_; }
  bool is_gguf() const { return !prefix_.empty(); }

 private:
  const Json& scalar(const std::string& key, const Json& value) const;

  Json object_;
  std::string operation_, file_, prefix_;
  mutable std::set<std::string> read_;
};

}  // namespace transformer
