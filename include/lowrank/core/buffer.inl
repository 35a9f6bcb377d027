#pragma once

#include <cerrno>
#include <cstring>
#include <new>

namespace lowrank::inline LOWRANK_ABI {

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
  const int file = platform::open_to_read(path);  // a pipe is refused below, not waited for
  check<IoError>(file >= 0, "map", "cannot open \"", path, "\": ", std::strerror(errno), "; give the path of a readable file");
  struct Closer {
    int file;
    ~Closer() { platform::close(file); }
  } closer{file};
  platform::FileStatus status;
  check<IoError>(platform::read_status(file, status), "map", "cannot read the size of \"", path, "\": ", std::strerror(errno));
  check<IoError>(status.is_regular, "map", '"', path, "\" is not a regular file; give the path of a file");
  Buffer buffer;
  if (status.size == 0) return buffer;
  const std::byte* bytes = platform::map_file(file, status.size);
  check<IoError>(bytes != nullptr, "map", "cannot map \"", path, "\" (", status.size, " bytes): ", std::strerror(errno));
  buffer.owner_ = std::shared_ptr<const std::byte>(bytes, [size = status.size](const std::byte* p) { platform::unmap_file(p, size); });
  buffer.data_ = bytes;
  buffer.size_ = status.size;
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
