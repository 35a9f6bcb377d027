#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/value.hpp>

namespace transformer::jinja {

/// A call's arguments, each at its parameter.
class Bound {
 public:
  /// `what`: the function, for errors. The first `required` parameters must be given. Throws ValueError for others than those named.
  Bound(Run& run, std::string_view what, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
        std::size_t required = 0);

  /// The argument, or null.
  const Value* operator[](std::size_t index) const { return given_[index]; }

  /// The argument, of a type; where it is not given, the other.
  const std::string& text(std::size_t index) const;
  std::int64_t whole(std::size_t index, std::int64_t otherwise) const;
  bool is_true(std::size_t index, bool otherwise) const;
  /// Whether an argument was given and is not none.
  bool has(std::size_t index) const { return given_[index] && !given_[index]->is(Kind::none); }

 private:
  Run& run_;
  std::string_view what_;
  std::vector<const Value*> given_;
};

}  // namespace transformer::jinja
