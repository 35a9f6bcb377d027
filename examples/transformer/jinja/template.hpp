#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/syntax.hpp>

namespace transformer::jinja {

/// A text in the part of Jinja that chat templates use, as transformers configures it: trim_blocks, lstrip_blocks, values that never
/// change,
/// {% break %}, {% continue %} and {% generation %}. What goes beyond is refused by name.
class Template {
 public:
  /// Throws FormatError with line and column.
  explicit Template(std::string_view source);

  using Variables = std::vector<std::pair<std::string, Value>>;

  struct Result {
    std::string text;
    std::vector<std::pair<std::size_t, std::size_t>> generated;  ///< bytes that stood inside {% generation %}, in rising order
  };
  /// Throws ValueError with line and column, or with the template's own words from raise_exception(), or beyond the limits.
  Result render(Run& run, Variables variables) const;

  /// Whether it says itself which words are the assistant's.
  bool has_generation() const { return has_generation_; }

 private:
  Block statements_;
  bool has_generation_ = false;
};

}  // namespace transformer::jinja
