#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <lowrank/core/shape.hpp>
#include <lowrank/error.hpp>

/// What every reader of a hostile file needs, besides core/shape.hpp: a cursor that never leaves its bytes, and names made fit to print.

namespace lowrank::inline LOWRANK_ABI {

/// The number stored in the first sizeof(T) bytes, at any alignment.
template <class T>
T load_number(const std::byte* bytes) {
  static_assert(std::is_arithmetic_v<T>);
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

/// A name from a file between quotes, fit to print, and no more than about 80 bytes of it.
inline std::string name_text(std::string_view name) { return '"' + printable(name, 80) + '"'; }

/// Reads numbers and strings one after the other; asking for more than is left is a FormatError that names file and position.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view operation, std::string file)
      : bytes_(bytes), operation_(operation), file_(std::move(file)) {}

  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }

  template <class T>
  T number(std::string_view what) {
    need(sizeof(T), what);
    const T value = load_number<T>(bytes_.data() + position_);
    position_ += sizeof(T);
    return value;
  }

  /// `size` bytes as text; its length is compared with what is left before anything is allocated.
  std::string text(std::uint64_t size, std::string_view what) {
    need(size, what);
    std::string value(reinterpret_cast<const char*>(bytes_.data() + position_), static_cast<std::size_t>(size));
    position_ += static_cast<std::size_t>(size);
    return value;
  }

  /// Throws unless `size` more bytes are left.
  void need(std::uint64_t size, std::string_view what) const {
    if (size > remaining())
      error("ends inside ", what, ": it needs ", size, " bytes but ", remaining(), " are left; the file is damaged or incomplete");
  }

  /// Throws a FormatError that begins with the operation, the file and the position.
  template <class... Parts>
  [[noreturn]] void error(const Parts&... parts) const {
    fail<FormatError>(operation_, file_, " at byte ", position_, ": ", parts...);
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string_view operation_;
  std::string file_;
};

}  // namespace lowrank::inline LOWRANK_ABI
