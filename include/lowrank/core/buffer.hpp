#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include <lowrank/core/platform.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Room for `count` numbers in pages of its own, large ones where the system has them: for an array that is large and short-lived, which
/// would leave a hole in the heap. Contents are zero. Throws std::bad_alloc.
template <class T>
class PagedArray {
 public:
  explicit PagedArray(std::size_t count) : size_(count * sizeof(T)), data_(static_cast<T*>(platform::map_pages(size_))) {}
  ~PagedArray() { platform::unmap_pages(data_, size_); }
  PagedArray(const PagedArray&) = delete;
  PagedArray& operator=(const PagedArray&) = delete;

  T* data() { return data_; }

 private:
  std::size_t size_;
  T* data_;
};

/// Bytes with shared ownership: allocated (64-byte aligned, zeroed) or mapped from a file; copies share them.
///
/// A slice keeps the whole alive. Frozen means const: only the maker of an allocated buffer may write, through mutable_data().
class Buffer {
 public:
  Buffer() = default;

  /// Zeroed bytes at a 64-byte boundary. Throws std::bad_alloc.
  static Buffer allocate(std::size_t size);

  /// The whole file, mapped read-only: processes share its pages, and it may exceed the memory. Throws IoError.
  static Buffer map(const char* path);
  /// The same for a std::filesystem::path or a std::string.
  template <class Path>
  requires requires(const Path& path) { path.c_str(); }
  static Buffer map(const Path& path) { return map(platform::path_bytes(path).c_str()); }

  /// Bytes [offset, offset + size), sharing ownership. Throws ShapeError when they are not all inside.
  Buffer slice(std::size_t offset, std::size_t size) const;

  const std::byte* data() const& { return data_; }
  const std::byte* data() const&& = delete;  // they lie in the buffer: give it a name first
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::span<const std::byte> bytes() const& { return {data_, size_}; }
  auto bytes() const&& = delete;  // they lie in the buffer: give it a name first

  /// The bytes as T; the caller knows that they hold T and are aligned for it.
  template <class T>
  const T* as() const& {
    return reinterpret_cast<const T*>(data_);
  }
  template <class T>
  const T* as() const&& = delete;  // they lie in the buffer: give it a name first
  /// For the one who allocated it, before it is shared; never for a mapped buffer.
  template <class T>
  T* mutable_as() & {
    return reinterpret_cast<T*>(const_cast<std::byte*>(data_));
  }
  template <class T>
  T* mutable_as() && = delete;  // they lie in the buffer: give it a name first

 private:
  std::shared_ptr<const std::byte> owner_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/core/buffer.inl>
#endif
