#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/error.hpp>

#include <transformer/jinja/value.hpp>

/// One rendering: where in the template it is, and how much it may still do. A template comes with a model from anywhere, so it must not
/// hang, nest or grow without bound.

namespace transformer::jinja {

/// A place in the template's source; both count from 1.
struct Position {
  std::size_t line = 1, column = 1;
};

/// What one rendering may use; chat templates need a thousandth of it.
struct Limits {
  std::uint64_t steps = 50'000'000;              ///< expressions, items gone through, and 64 bytes of text read
  std::uint64_t bytes = std::uint64_t{1} << 28;  ///< of texts and lists made, whether or not they are still in use
  int depth = 500;                               ///< expressions and macros in each other
};

/// Most lists and mappings in each other.
inline constexpr int max_nesting = 100;

class Run {
 public:
  explicit Run(std::optional<std::time_t> now = {}, Limits limits = {}) : now_(now), limits_(limits) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  /// Namespaces may refer to each other in a circle: they are emptied.
  ~Run() {
    for (const auto& space : spaces_) space->members.clear();
  }

  Position at;  ///< of what is being evaluated

  /// Throws ValueError "[jinja] line …, column …: …".
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    lowrank::fail<lowrank::ValueError>("jinja", "line ", at.line, ", column ", at.column, ": ", parts...);
  }

  template <class... Parts>
  void check(bool condition, const Parts&... parts) const {
    if (!condition) [[unlikely]]
      fail(parts...);
  }

  /// Counts work done. Throws ValueError beyond the limit.
  void step(std::uint64_t count = 1) {
    steps_ += count;
    check(steps_ <= limits_.steps, "the template takes more than ", limits_.steps, " steps; it may never end");
  }
  /// Counts bytes of text that are looked at.
  void read(std::uint64_t bytes) { step(1 + bytes / 64); }
  /// Counts memory. Throws ValueError beyond the limit.
  void charge(std::uint64_t bytes) {
    bytes_ += bytes;
    check(bytes_ <= limits_.bytes && bytes <= limits_.bytes, "the template makes more than ", limits_.bytes, " bytes of text and lists");
  }

  Value text(std::string value) {
    charge(value.size() + 1);
    return Value::text(std::move(value));
  }
  Value list(Items items) { return checked(Value::list(counted(std::move(items)))); }
  Value tuple(Items items) { return checked(Value::tuple(counted(std::move(items)))); }
  Value generator(Items items) { return Value::generator(counted(std::move(items))); }
  Value dict(Entries entries) {
    charge(entries.size() * sizeof(entries[0]));
    return checked(Value::dict(std::move(entries)));
  }
  Value space(Space members) {
    charge(sizeof(Space) + members.members.size() * sizeof(members.members[0]));
    spaces_.push_back(std::make_shared<Space>(std::move(members)));
    return Value::space(spaces_.back());
  }

  std::time_t now() const { return now_ ? *now_ : std::time(nullptr); }

  /// While it lives, one more thing is inside another. Throws ValueError beyond the limit.
  class Deeper {
   public:
    explicit Deeper(Run& run) : run_(run) {
      run.check(run.depth_ < run.limits_.depth, "the template nests more than ", run.limits_.depth, " deep; a macro may call itself");
      ++run.depth_;
    }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ~Deeper() { --run_.depth_; }

   private:
    Run& run_;
  };

 private:
  Items counted(Items items) {
    charge(items.size() * sizeof(Value) + sizeof(List));
    return items;
  }
  Value checked(Value value) const {
    check(value.nesting() <= max_nesting, "lists and mappings are more than ", max_nesting, " deep in each other");
    return value;
  }

  std::optional<std::time_t> now_;
  Limits limits_;
  std::uint64_t steps_ = 0, bytes_ = 0;
  int depth_ = 0;
  std::vector<std::shared_ptr<Space>> spaces_;
};

}  // namespace transformer::jinja
