#pragma once

/// What the library's types are in one line: `describe(x)` gives it as text, and streams print it.

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Sizes for people: 512 B, 2.1 kB, 13 MB (1000 bytes are a kB).
std::string bytes_text(std::size_t bytes);

/// The name of a compute type: fp32, bf16, int8.
constexpr std::string_view compute_text(Compute compute) {
  return compute == Compute::fp32 ? "fp32" : compute == Compute::bf16 ? "bf16" : "int8";
}
/// The same.
inline std::string describe(Compute compute) { return std::string(compute_text(compute)); }

/// What can be told in one line. To make it so of a type of yours, give its namespace a `describe`, which returns a std::string.
template <class T>
concept Described = requires(const T& x) {
  { describe(x) } -> std::same_as<std::string>;
};

/// Prints the line. Not for std::ostream by name: to know it costs a compiler more than most headers of the library.
template <class Stream, Described T>
requires requires(Stream& stream, const std::string& text) { stream << text; }
Stream& operator<<(Stream& stream, const T& x) {
  stream << describe(x);
  return stream;
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/core/print.inl>
#endif
