#pragma once

#include <optional>
#include <string>

/// Ctrl-C as something to ask for.

namespace cli {

/// While it lives, Ctrl-C ends nothing by itself.
class Interrupt {
 public:
  Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  ~Interrupt();

  /// Whether Ctrl-C was typed since the last forget().
  bool is_asked_for() const;
  void forget();
};

/// The next line of stdin without its end, or nothing at the end of the input or when Ctrl-C is typed.
std::optional<std::string> read_line();

/// Whether stdin is a terminal.
bool is_terminal();

}  // namespace cli
