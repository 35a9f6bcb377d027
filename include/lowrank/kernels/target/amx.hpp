#pragma once

/// AMX: products of bfloat16 by tiles of 16 rows of 64 bytes; the rest is that of AVX-512 with BF16.
///
/// A step of the micro-kernel multiplies 32 tokens and 32 rows over 32 of depth: four products of tiles of 16 cycles each, for 4 KiB that
/// are loaded in 32 cycles from the first cache. So tiles are bound by arithmetic where half of the bytes, the tokens' panel, stay in the
/// first cache (48 KiB: 24 of them, 384 of depth) and the other half, the rows' panel, comes from the second at 32 bytes a cycle of about
/// 48; were both to come from there, a third more time would pass. Tokens come from the third cache, prefetched, once for all rows of a
/// task: for 512 tokens 512 rows, 2 bytes a cycle. Their panels (384 KiB) and sums (1 MiB) fit the second cache (2 MiB). Sums wait between
/// blocks of depth in one piece, 4 KiB a panel: columns of Y that are a power of two apart would meet in one set of the caches.
///
/// An element is the sum of its 32-blocks of depth in their order, begun with what was there. Within one, two chains of fused multiply-adds
/// go over the even and the odd elements from zero on, and are then added. Each operation rounds to nearest even, and a subnormal number is
/// zero, as an input and as a result. Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS.

#if defined(__x86_64__)

#include <cstdint>

#include <lowrank/core/platform.hpp>
#include <lowrank/kernels/target/avx512bf16.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels::amx {

#if defined(__clang__)
#pragma clang attribute push(                                                                                            \
    __attribute__((target("amx-tile,amx-bf16,avx512bf16,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own intrinsics start from an undefined register
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#endif

#include <lowrank/kernels/target/amx/tiles.inl>

#include <lowrank/kernels/target/amx/panels.inl>

#include <lowrank/kernels/target/amx/multiply.inl>

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

/// Whether a processor with AVX-512 multiplies tiles of bfloat16, and the operating system saves them. clang 14 cannot ask by name.
inline bool has_tiles() {
  constexpr std::uint32_t bf16 = 1u << 22, tile = 1u << 24, tile_state = 3u << 17;
  std::uint32_t a = 7, b = 0, c = 0, d = 0;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  if ((d & bf16) == 0 || (d & tile) == 0) return false;
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & tile_state) == tile_state;
}

inline bool is_available() {
  static const bool available = avx512bf16::is_available() && has_tiles() && platform::allows_tiles();
  return available;
}

/// The target on tiles of the processor, or on what stands for them in tests.
template <class Tiles>
constexpr Target make_target(const char* name, bool (*available)()) {
  Target all = avx512bf16::target;
  all.name = name;
  all.is_available = available;
  PanelKernels& bf16 = all.bf16;  // rows are packed as for AVX-512
  bf16.lanes = lanes;
  bf16.vectors = vectors;
  bf16.columns = columns;
  bf16.grain = grain;
  bf16.pack_token_rows = pack_token_rows;
  bf16.pack_token_columns = pack_token_columns;
  bf16.multiply = multiply<Tiles>;
  bf16.multiply_blocks = nullptr;
  bf16.enter = enter<Tiles>;
  bf16.leave = leave<Tiles>;
  bf16.outruns_caches = true;
  return all;
}
inline constexpr Target target = make_target<HardwareTiles>("amx", is_available);

}  // namespace lowrank::inline LOWRANK_ABI::kernels::amx
LOWRANK_IEEE_END

#endif  // defined(__x86_64__)
