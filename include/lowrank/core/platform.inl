#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <new>

#include <fcntl.h>
#include <sys/stat.h>
#if defined(_WIN32)
#include <filesystem>

#include <io.h>
#include <process.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#endif
#endif

#if defined(_WIN32)

// These few functions of the system, declared as <windows.h> declares them: that header would leave its macros in every unit.
struct _SECURITY_ATTRIBUTES;
extern "C" {
__declspec(dllimport) void* __stdcall VirtualAlloc(void* address, std::size_t size, unsigned long type, unsigned long protection);
__declspec(dllimport) int __stdcall VirtualFree(void* address, std::size_t size, unsigned long type);
__declspec(dllimport) void* __stdcall CreateFileMappingW(void* file, _SECURITY_ATTRIBUTES* attributes, unsigned long protection,
                                                         unsigned long size_high, unsigned long size_low, const wchar_t* name);
__declspec(dllimport) void* __stdcall MapViewOfFile(void* mapping, unsigned long access, unsigned long offset_high,
                                                    unsigned long offset_low, std::size_t size);
__declspec(dllimport) int __stdcall UnmapViewOfFile(const void* address);
__declspec(dllimport) int __stdcall CloseHandle(void* handle);
}

namespace lowrank::inline LOWRANK_ABI::platform {

LOWRANK_INLINE void* map_pages(std::size_t size) {
  if (size == 0) return nullptr;
  constexpr unsigned long reserve_and_commit = 0x3000, read_and_write = 4;
  void* address = ::VirtualAlloc(nullptr, size, reserve_and_commit, read_and_write);
  if (address == nullptr) throw std::bad_alloc();
  return address;
}
LOWRANK_INLINE void unmap_pages(void* begin, std::size_t) noexcept {
  constexpr unsigned long release = 0x8000;
  if (begin != nullptr) ::VirtualFree(begin, 0, release);
}
LOWRANK_INLINE void prefer_large_pages(void*, std::size_t) noexcept {}  // they need a privilege

namespace detail {
LOWRANK_INLINE std::filesystem::path wide(const char* path) { return reinterpret_cast<const char8_t*>(path); }
}  // namespace detail

LOWRANK_INLINE int open_to_read(const char* path) { return ::_wopen(detail::wide(path).c_str(), _O_RDONLY | _O_BINARY | _O_NOINHERIT); }
LOWRANK_INLINE int create(const char* path) {
  return ::_wopen(detail::wide(path).c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT, _S_IREAD | _S_IWRITE);
}
LOWRANK_INLINE std::ptrdiff_t write(int file, const void* bytes, std::size_t size) {
  constexpr std::size_t most = 1 << 30;  // the call counts in int
  return ::_write(file, bytes, static_cast<unsigned>(size < most ? size : most));
}
LOWRANK_INLINE bool sync(int file) { return ::_commit(file) == 0; }
LOWRANK_INLINE bool close(int file) { return ::_close(file) == 0; }

LOWRANK_INLINE bool read_status(int file, FileStatus& status) {
  struct ::_stat64 found {};
  if (::_fstat64(file, &found) != 0) return false;
  status = {(found.st_mode & _S_IFMT) == _S_IFREG, static_cast<std::size_t>(found.st_size)};
  return true;
}

LOWRANK_INLINE const std::byte* map_file(int file, std::size_t size) {
  constexpr unsigned long read_only = 2, read_access = 4;
  void* mapping = ::CreateFileMappingW(reinterpret_cast<void*>(::_get_osfhandle(file)), nullptr, read_only, 0, 0, nullptr);
  void* address = mapping == nullptr ? nullptr : ::MapViewOfFile(mapping, read_access, 0, 0, size);
  if (mapping != nullptr) ::CloseHandle(mapping);  // the view keeps it
  if (address == nullptr) errno = ENOMEM;
  return static_cast<const std::byte*>(address);
}
LOWRANK_INLINE void unmap_file(const std::byte* begin, std::size_t) noexcept { ::UnmapViewOfFile(begin); }

LOWRANK_INLINE bool rename(const char* from, const char* to) {
  std::error_code failure;
  std::filesystem::rename(detail::wide(from), detail::wide(to), failure);
  if (failure) errno = failure.default_error_condition().value();
  return !failure;
}
LOWRANK_INLINE bool remove(const char* path) { return ::_wunlink(detail::wide(path).c_str()) == 0; }
LOWRANK_INLINE void sync_folder(const char*) {}

LOWRANK_INLINE long process_id() { return ::_getpid(); }

LOWRANK_INLINE long cache_bytes(int) { return 0; }

LOWRANK_INLINE bool moves_wide_variables() {
#if defined(__GNUC__) && !defined(__clang__)
  const unsigned char* code = nullptr;  // what the assembler made of a vmovaps: C5 FC 29 00, or vmovups, C5 FC 11 00
  __asm__("lea 1f(%%rip), %0\n\tjmp 2f\n1:\tvmovaps %%ymm0, (%%rax)\n2:" : "=r"(code));
  return code[2] == 0x11;
#else
  return true;
#endif
}

LOWRANK_INLINE bool allows_tiles() { return false; }

LOWRANK_INLINE bool has_arm_feature(ArmFeature) { return false; }

}  // namespace lowrank::inline LOWRANK_ABI::platform

#else  // POSIX

namespace lowrank::inline LOWRANK_ABI::platform {

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
LOWRANK_INLINE void prefer_large_pages([[maybe_unused]] void* begin, [[maybe_unused]] std::size_t size) noexcept {
#if defined(MADV_HUGEPAGE)
  constexpr std::size_t page = 4096, worthwhile = 4 << 20;
  if (size < worthwhile) return;
  const std::size_t skipped = (page - reinterpret_cast<std::uintptr_t>(begin) % page) % page;
  ::madvise(static_cast<std::byte*>(begin) + skipped, (size - skipped) / page * page, MADV_HUGEPAGE);  // a wish: failure costs speed only
#endif
}

LOWRANK_INLINE int open_to_read(const char* path) { return ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); }
LOWRANK_INLINE int create(const char* path) { return ::open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); }
LOWRANK_INLINE std::ptrdiff_t write(int file, const void* bytes, std::size_t size) {
  std::ptrdiff_t count = ::write(file, bytes, size);
  while (count < 0 && errno == EINTR) count = ::write(file, bytes, size);
  return count;
}
LOWRANK_INLINE bool sync(int file) {
#if defined(__APPLE__)
  if (::fcntl(file, F_FULLFSYNC) == 0) return true;  // fsync there does not wait for the disk; some file systems have nothing else
#endif
  return ::fsync(file) == 0;
}
LOWRANK_INLINE bool close(int file) { return ::close(file) == 0; }

LOWRANK_INLINE bool read_status(int file, FileStatus& status) {
  struct ::stat found {};
  if (::fstat(file, &found) != 0) return false;
  status = {S_ISREG(found.st_mode), static_cast<std::size_t>(found.st_size)};
  return true;
}

LOWRANK_INLINE const std::byte* map_file(int file, std::size_t size) {
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  return address == MAP_FAILED ? nullptr : static_cast<const std::byte*>(address);
}
LOWRANK_INLINE void unmap_file(const std::byte* begin, std::size_t size) noexcept { ::munmap(const_cast<std::byte*>(begin), size); }

LOWRANK_INLINE bool rename(const char* from, const char* to) { return std::rename(from, to) == 0; }
LOWRANK_INLINE bool remove(const char* path) { return ::unlink(path) == 0; }
LOWRANK_INLINE void sync_folder(const char* path) {
  const int descriptor = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  sync(descriptor);
  close(descriptor);
}

LOWRANK_INLINE long process_id() { return ::getpid(); }

LOWRANK_INLINE long cache_bytes([[maybe_unused]] int level) {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const long size = ::sysconf(level == 1 ? _SC_LEVEL1_DCACHE_SIZE : _SC_LEVEL2_CACHE_SIZE);
  return size > 0 ? size : 0;
#elif defined(__APPLE__)
  std::int64_t size = 0;
  std::size_t room = sizeof(size);
  return ::sysctlbyname(level == 1 ? "hw.l1dcachesize" : "hw.l2cachesize", &size, &room, nullptr, 0) == 0 ? static_cast<long>(size) : 0;
#else
  return 0;
#endif
}

LOWRANK_INLINE bool moves_wide_variables() { return true; }

LOWRANK_INLINE bool allows_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM; a processor state that signals and threads must make room for
  const int error = errno;
  const bool allowed = ::syscall(SYS_arch_prctl, request, tile_data) == 0;
  errno = error;
  return allowed;
#else
  return false;
#endif
}

LOWRANK_INLINE bool has_arm_feature([[maybe_unused]] ArmFeature feature) {
#if defined(__linux__) && defined(__aarch64__)
  constexpr unsigned long asimddp = 1ul << 20, bf16 = 1ul << 14;  // in AT_HWCAP and AT_HWCAP2
  return ((feature == ArmFeature::dot_product ? ::getauxval(AT_HWCAP) & asimddp : ::getauxval(AT_HWCAP2) & bf16)) != 0;
#elif defined(__APPLE__)
  const char* name = feature == ArmFeature::dot_product ? "hw.optional.arm.FEAT_DotProd" : "hw.optional.arm.FEAT_BF16";
  int value = 0;
  std::size_t room = sizeof(value);
  return ::sysctlbyname(name, &value, &room, nullptr, 0) == 0 && value != 0;
#else
  return false;
#endif
}

}  // namespace lowrank::inline LOWRANK_ABI::platform

#endif
