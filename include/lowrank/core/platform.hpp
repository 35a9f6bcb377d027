#pragma once

/// What the library asks of an operating system: pages of memory, files, sizes of caches. Linux, macOS and Windows differ here and nowhere
/// else.
///
/// Paths are text as the system's own calls take it; on Windows UTF-8. What fails leaves its reason in errno.

#include <cstddef>
#include <string>

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI::platform {

/// Zeroed pages; null for a size of 0. Throws std::bad_alloc.
void* map_pages(std::size_t size);
/// Gives them back; null is nothing to give.
void unmap_pages(void* begin, std::size_t size) noexcept;
/// Asks for large pages in memory about to be written for the first time: on Linux a page fault costs as much as writing ten pages.
void prefer_large_pages(void* begin, std::size_t size) noexcept;

/// A path (std::string, std::filesystem::path) as the calls below take it.
template <class Path>
std::string path_bytes(const Path& path) {
  if constexpr (requires { std::string(path.c_str()); })
    return path.c_str();
  else {  // the system's own paths are wide
    const auto bytes = path.u8string();
    return {bytes.begin(), bytes.end()};
  }
}

/// Opens a file for reading; a pipe is opened, not waited for. Returns its descriptor, -1 on failure.
int open_to_read(const char* path);
/// Makes a file that must not exist yet, for writing. Returns its descriptor, -1 on failure.
int create(const char* path);
/// Bytes written, fewer than `size` perhaps; -1 on failure.
std::ptrdiff_t write(int file, const void* bytes, std::size_t size);
/// Whether all that was written is on the disk.
bool sync(int file);
/// Whether it was open, and nothing was lost.
bool close(int file);

/// What a descriptor is open on.
struct FileStatus {
  bool is_regular = false;
  std::size_t size = 0;
};
/// False on failure.
bool read_status(int file, FileStatus& status);

/// The bytes of a file, shared with all processes that map it, read-only; null on failure. The descriptor may be closed.
const std::byte* map_file(int file, std::size_t size);
/// Ends a mapping.
void unmap_file(const std::byte* begin, std::size_t size) noexcept;

/// Gives a file a name that another one may have had; true if it was done. On Windows it is not while the other one is mapped.
bool rename(const char* from, const char* to);
/// Removes a file's name; true if there was one.
bool remove(const char* path);
/// Makes a folder's entries durable after a rename; systems without that are left as they are.
void sync_folder(const char* path);

/// A number that no other running process has.
long process_id();

/// Bytes of a core's data cache of level 1 or 2; 0 where the system does not tell.
long cache_bytes(int level);

/// Whether code for AVX may move variables to and from the stack. GCC for Windows does not align them there (its bug 54412), which faults
/// unless the assembler makes moves that need no boundary: -Wa,-muse-unaligned-vector-move.
bool moves_wide_variables();

/// Asks that this process may use the tile registers of AMX, which Linux gives on request; whether it may.
bool allows_tiles();

/// What an aarch64 processor may have beyond its base: FEAT_DotProd, FEAT_BF16.
enum class ArmFeature { dot_product, bfloat16 };
/// Whether it has it; false where the system does not tell.
bool has_arm_feature(ArmFeature feature);

}  // namespace lowrank::inline LOWRANK_ABI::platform

#if !defined(LOWRANK_COMPILED)
#include <lowrank/core/platform.inl>
#endif
