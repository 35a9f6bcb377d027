#pragma once

/// How a tile of bfloat16 lies in shared memory for wgmma, the products of a warpgroup (four warps) on sm_90a, and how it is named there.
///
/// wgmma reads a factor through a descriptor of 64 bits (PTX ISA, "Matrix Descriptor Format"):
///
///   bits 0 … 13 start address / 16, 16 … 29 leading byte offset / 16, 32 … 45 stride byte offset / 16, 49 … 51 base offset, 62 … 63
///   swizzle
///
/// Here every row of a tile is 128 bytes, with the 128-byte swizzle (mode 1): of the eight words of 16 bytes in row i, word p lies where
/// p xor (i mod 8) would, so that eight rows at one word meet no bank twice. Eight rows are a pattern of 1024 bytes that begins at a
/// multiple of 1024, hence base offset 0. Two layouts (PTX ISA, "Canonical Layouts", 128B swizzling):
///
///   K-major   a row holds 64 of the depth. Stride: from 8 rows to the next 8; leading is not used. 16 further along: start + 32 bytes.
///   MN-major  a row holds 64 rows of the factor, at one depth. Stride: from 8 of the depth to the next 8; leading: to the next 64 rows of
///   the
///             factor. 16 further along: start + 16 rows.
///
/// The sums [64, N] of a warpgroup: d[i] of a thread is row 16 (warp mod 4) + lane / 4 + 8 (i / 2 mod 2), column 8 (i / 4) + 2 (lane mod 4)
/// + i mod 2 (PTX ISA, "Matrix Fragments for wgmma.mma_async.m64nNk16").

#include <cstdint>

#include <lowrank/cuda/kernels/simt.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

inline constexpr int warpgroup_size = 4 * warp_size, swizzle_row_bytes = 128, swizzle_pattern_bytes = 1024;

constexpr std::uint64_t matrix_descriptor(std::uint32_t address, std::uint32_t leading_bytes, std::uint32_t stride_bytes) {
  const auto encoded = [](std::uint32_t bytes) -> std::uint64_t { return (bytes & 0x3ffff) >> 4; };
  constexpr std::uint64_t swizzle_128_bytes = 1;
  return encoded(address) | encoded(leading_bytes) << 16 | encoded(stride_bytes) << 32 | swizzle_128_bytes << 62;
}

/// Index of a word of 16 bytes, elements 8 part … 8 part + 7 of a row, in a swizzled tile of [height] rows. Tiles wider than 64 elements
/// are cut into such of 64, one after the other.
constexpr int swizzled_word(int row, int part, int height) { return (part / 8 * height + row) * 8 + (part % 8 ^ row % 8); }

/// Row of a warpgroup's sums that is at d[i] of a thread, and column.
constexpr int wgmma_row(int thread, int i) { return thread / warp_size % 4 * 16 + thread % warp_size / 4 + i / 2 % 2 * 8; }
constexpr int wgmma_column(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

/// Kernels that say `needs_wgmma`: their code exists on sm_90a alone.
template <class Kernel>
concept UsesWgmma = requires {
  requires Kernel::needs_wgmma;
};

/// The block's shared memory from a multiple of 1024 on; the kernel asks for that much more.
inline constexpr std::size_t swizzle_slack = swizzle_pattern_bytes - 16;
template <class T, class Simt>
LOWRANK_DEVICE T& swizzled_shared_as(Simt& t) {
  const std::uint32_t past = t.shared_address(t.shared()) % swizzle_pattern_bytes;
  return *reinterpret_cast<T*>(t.shared() + (past == 0 ? 0 : swizzle_pattern_bytes - past));
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
