#pragma once

#include <cstddef>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What every exception of the library derives from; its text begins with the operation in brackets.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ShapeError : Error {  ///< sizes that do not fit together
  using Error::Error;
};
struct ValueError : Error {  ///< an argument outside its range, or a number that is not finite
  using Error::Error;
};
struct FormatError : Error {  ///< a file or text that does not hold what its format says
  using Error::Error;
};
struct IoError : Error {  ///< the operating system refused: open, read, map, write, rename
  using Error::Error;
};

/// Concatenates anything that a stream can print.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return std::move(text).str();
}

/// Throws Kind with the text "[operation] parts…"; parts say what was given, what was expected and how to fix it.
template <class Kind, class... Parts>
[[noreturn]] void fail(std::string_view operation, const Parts&... parts) {
  throw Kind(concat('[', operation, "] ", parts...));
}

/// Throws Kind unless the condition holds. The parts are printed only then.
template <class Kind, class... Parts>
void check(bool condition, std::string_view operation, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail<Kind>(operation, parts...);
}

}  // namespace lowrank::inline LOWRANK_ABI
