#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE void prefer_large_pages([[maybe_unused]] void* begin, [[maybe_unused]] std::size_t size) {
#if defined(MADV_HUGEPAGE)
  constexpr std::size_t page = 4096, worthwhile = 4 << 20;
  if (size < worthwhile) return;
  const std::size_t skipped = (page - reinterpret_cast<std::uintptr_t>(begin) % page) % page;
  ::madvise(static_cast<std::byte*>(begin) + skipped, (size - skipped) / page * page, MADV_HUGEPAGE);  // a wish: failure costs speed only
#endif
}

LOWRANK_INLINE void* map_pages(std::size_t size) {
  if (size == 0) return nullptr;
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  prefer_large_pages(address, size);
  return address;
}
LOWRANK_INLINE void unmap_pages(void* begin, std::size_t size) noexcept {
  if (begin != nullptr) ::munmap(begin, size);
}

}  // namespace detail

LOWRANK_INLINE Buffer Buffer::allocate(std::size_t size) {
  Buffer buffer;
  if (size == 0) return buffer;
  auto* bytes = static_cast<std::byte*>(::operator new (size, std::align_val_t{64}));
  std::memset(bytes, 0, size);
  buffer.owner_ = std::shared_ptr<std::byte>(bytes, [](std::byte* p) { ::operator delete (p, std::align_val_t{64}); });
  buffer.data_ = bytes;
  buffer.size_ = size;
  return buffer;
}

LOWRANK_INLINE Buffer Buffer::map(const char* path) {
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

LOWRANK_INLINE Buffer Buffer::slice(std::size_t offset, std::size_t size) const {
  check<ShapeError>(offset <= size_ && size <= size_ - offset, "slice", "bytes [", offset, ", +", size, ") of a buffer of ", size_,
                    " bytes");
  Buffer part = *this;
  part.data_ = data_ + offset;
  part.size_ = size;
  return part;
}

}  // namespace lowrank::inline LOWRANK_ABI
