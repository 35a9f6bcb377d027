#pragma once

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/types.hpp>

#include <support/table.hpp>

namespace cli {

using lowrank::Index;
using support::format;
using support::Table;

/// A value of a report: null, a truth value, a number, a text, a list, or an object whose members keep their order.
class Json {
 public:
  using Member = std::pair<std::string, Json>;

  Json(std::nullptr_t = nullptr) {}
  Json(bool value) : kind_(Kind::truth), integer_(value) {}
  Json(std::integral auto value) : kind_(Kind::integer), integer_(static_cast<long long>(value)) {}
  Json(std::floating_point auto value) : kind_(Kind::real), real_(static_cast<double>(value)) {}
  Json(const char* text) : kind_(Kind::text), text_(text) {}
  Json(std::string text) : kind_(Kind::text), text_(std::move(text)) {}
  Json(std::initializer_list<Member> members);
  template <class T>
  Json(const std::vector<T>& items) : kind_(Kind::list) {
    for (const T& item : items) push_back(item);
  }

  static Json list() { return std::vector<Json>(); }

  /// Appends to a list.
  void push_back(Json item);
  /// The member of an object, null at first; null itself becomes an object.
  Json& operator[](const std::string& name);
  /// Adds an object's members to another's.
  void update(const Json& other);

  /// As a text in lines, or in one.
  std::string lines() const;
  std::string line() const;

 private:
  enum class Kind { null, truth, integer, real, text, list, object };
  friend struct JsonWriter;

  Kind kind_ = Kind::null;
  long long integer_ = 0;
  double real_ = 0;
  std::string text_;
  std::vector<Member> members_;  // those of a list have no names
};

/// The numbers of a JSON list, or nothing where a text is none.
std::optional<std::vector<double>> parse_numbers(const std::string& text);

/// Writes a report where --json asks for it; the file is whole or untouched.
void write_json(const std::filesystem::path& path, const Json& report);

/// Seconds since the start of the program.
double now();

/// Largest memory that the process has held, bytes.
long long peak_memory();

/// 1234567 as "1.18 MiB".
std::string human_bytes(long long bytes);

/// One line that rewrites itself on a terminal; a plain line now and then elsewhere. Goes to stderr.
class Progress {
 public:
  Progress(Index total, std::string label);

  void show(Index done, double loss, double tokens_per_second);
  /// A line of its own, above the one that rewrites itself.
  void say(const std::string& text) const;

 private:
  Index total_;
  std::string label_;
  bool terminal_;
  double start_ = now(), next_line_ = 0;
};

/// A loss curve as a picture that any browser shows.
std::string loss_svg(const std::vector<double>& losses, const std::string& title);

}  // namespace cli
