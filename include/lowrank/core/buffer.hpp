#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
/// Asks for large pages in memory about to be written for the first time: on Linux a page fault costs as much as writing ten pages.
inline void prefer_large_pages([[maybe_unused]] void* begin, [[maybe_unused]] std::size_t size) {
#if defined(MADV_HUGEPAGE)
  constexpr std::size_t page = 4096, worthwhile = 4 << 20;
  if (size < worthwhile) return;
  const std::size_t skipped = (page - reinterpret_cast<std::uintptr_t>(begin) % page) % page;
  ::madvise(static_cast<std::byte*>(begin) + skipped, (size - skipped) / page * page, MADV_HUGEPAGE);  // a wish: failure costs speed only
#endif
}
}  // namespace detail

/// Room for `count` numbers in pages of its own, large ones where the system has them: for an array that is large and short-lived, which
/// would leave a hole in the heap. Contents are zero. Throws std::bad_alloc.
template <class T>
class PagedArray {
 public:
  explicit PagedArray(std::size_t count) : size_(count * sizeof(T)) {
    if (size_ == 0) return;
    void* address = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(address);
    detail::prefer_large_pages(address, size_);
  }
  ~PagedArray() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }
  PagedArray(const PagedArray&) = delete;
  PagedArray& operator=(const PagedArray&) = delete;

  T* data() { return data_; }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

/// Bytes with shared ownership: allocated (64-byte aligned, zeroed) or mapped from a file; copies share them.
///
/// A slice keeps the whole alive. Frozen means const: only the maker of an allocated buffer may write, through mutable_data().
class Buffer {
 public:
  Buffer() = default;

  /// Zeroed bytes at a 64-byte boundary. Throws std::bad_alloc.
  static Buffer allocate(std::size_t size) {
    Buffer buffer;
    if (size == 0) return buffer;
    auto* bytes = static_cast<std::byte*>(::operator new (size, std::align_val_t{64}));
    std::memset(bytes, 0, size);
    buffer.owner_ = std::shared_ptr<std::byte>(bytes, [](std::byte* p) { ::operator delete (p, std::align_val_t{64}); });
    buffer.data_ = bytes;
    buffer.size_ = size;
    return buffer;
  }

  /// The whole file, mapped read-only: processes share its pages, and it may exceed the memory. Throws IoError.
  static Buffer map(const char* path) {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe is refused below, not waited for
    check<IoError>(file >= 0, "map", "cannot open \"", path, "\": ", std::strerror(errno), "; give the path of a readable file");
    struct Closer {
      int file;
      ~Closer() { ::close(file); }
    } closer{file};
    struct stat status {};
    check<IoError>(::fstat(file, &status) == 0, "map", "cannot read the size of \"", path, "\": ", std::strerror(errno));
    check<IoError>(S_ISREG(status.st_mode), "map", '"', path, "\" is not a regular file; give the path of a file");
    Buffer buffer;
    const auto size = static_cast<std::size_t>(status.st_size);
    if (size == 0) return buffer;
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
    check<IoError>(address != MAP_FAILED, "map", "cannot map \"", path, "\" (", size, " bytes): ", std::strerror(errno));
    buffer.owner_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(address), [size](std::byte* p) { ::munmap(p, size); });
    buffer.data_ = buffer.owner_.get();
    buffer.size_ = size;
    return buffer;
  }
  /// The same for a std::filesystem::path or a std::string.
  template <class Path>
  requires requires(const Path& path) { path.c_str(); }
  static Buffer map(const Path& path) { return map(path.c_str()); }

  /// Bytes [offset, offset + size), sharing ownership. Throws ShapeError when they are not all inside.
  Buffer slice(std::size_t offset, std::size_t size) const {
    check<ShapeError>(offset <= size_ && size <= size_ - offset, "slice", "bytes [", offset, ", +", size, ") of a buffer of ", size_,
                      " bytes");
    Buffer part = *this;
    part.data_ = data_ + offset;
    part.size_ = size;
    return part;
  }

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// The bytes as T; the caller knows that they hold T and are aligned for it.
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }
  /// For the one who allocated it, before it is shared; never for a mapped buffer.
  template <class T>
  T* mutable_as() {
    return reinterpret_cast<T*>(const_cast<std::byte*>(data_));
  }

 private:
  std::shared_ptr<std::byte> owner_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI
