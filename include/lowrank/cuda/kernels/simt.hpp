#pragma once

/// What a kernel is written in terms of.
///
/// A kernel is a struct of plain pointers and sizes with `template <class Simt> LOWRANK_DEVICE void operator()(Simt& t) const`, the work
/// of one thread. Everything that only a GPU has it asks of `t`: where it stands (thread, block), barriers, exchange inside a warp, tensor
/// cores, asynchronous copies, shared memory. cuda/kernels/thread.hpp answers with instructions, in nvcc's device code; the tests answer
/// with a model of a block on the CPU. So the same source is compiled for both, and its indices, masks and barriers are tested without a
/// GPU. A Simt has:
///
///   int thread(), threads(), lane(), warp(); int block_x(), block_y(), block_z();    // a block is one-dimensional, the grid up to three
///   std::byte* shared();                                                             // the block's shared memory, 16-byte aligned
///   void sync(); void sync_warp();                                                   // barriers
///   T shuffle_xor(T value, int mask);                                                // the value of lane ^ mask
///   void mma(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
///   void load_matrices(std::uint32_t (&r)[4], const bfloat16* row);                  // ldmatrix.x4, and with .trans
///   void load_matrices_transposed(std::uint32_t (&r)[4], const bfloat16* row);
///   void copy_async(void* shared, const void* global, int bytes);                    // 16 bytes, those from `bytes` on become zero
///   void commit(); void wait(Pending<N>);                                            // all but the last N committed groups have landed
///   Word4 stream(const Word4* global);                                               // 16 bytes that are read once
///   std::uint32_t shared_address(const void* shared);                                // its address in the window of shared memory
///   std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector);  // byte i: byte (selector >> 4 i & 7) of a, b
///   void allow_next(); void wait_for_previous();                                     // see starts_early below
///
/// and, on sm_90a, products of a warpgroup that run beside the threads (cuda/kernels/wgmma.hpp has their layouts):
///
///   void fence_async();                              // what this thread stored, and its copies that landed, may be read by wgmma
///   void wgmma_fence();                              // what was done to the sums comes before the products that follow
///   void wgmma<ATransposed>(float (&sums)[N / 2], std::uint64_t a, std::uint64_t b);  // sums [64, N] += A [64, 16] · B [16, N]
///   void wgmma_commit(); void wgmma_wait(float (&sums)[N / 2]);  // all products are done, the sums and the factors' memory free again
///
/// Shapes of mma, m16n8k16 with bfloat16 factors and float sums, g = lane / 4, t = lane % 4 (PTX ISA, mma.m16n8k16):
///
///   A [16, 16]  a[0] = (g, 2t), (g, 2t + 1);  a[1] = row g + 8;  a[2] = depth + 8;  a[3] = both
///   B [16, 8]   b[0] = (2t, g), (2t + 1, g);  b[1] = depth + 8
///   C [16, 8]   c[0] = (g, 2t), c[1] = (g, 2t + 1);  c[2], c[3] = row g + 8
///
/// load_matrices reads four 8 × 8 matrices, lane 8 i + j giving the address of row j of matrix i; r[i] = (g, 2t), (g, 2t + 1) of matrix i,
/// or transposed (2t, g), (2t + 1, g).

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <lowrank/core/types.hpp>

#if defined(__CUDACC__)
#define LOWRANK_DEVICE __device__ __forceinline__
#else
#define LOWRANK_DEVICE inline
#endif

/// Before a loop of fixed length whose index picks registers.
#if defined(__CUDA_ARCH__)
#define LOWRANK_CUDA_UNROLL _Pragma("unroll")
#else
#define LOWRANK_CUDA_UNROLL
#endif

namespace lowrank::inline LOWRANK_ABI::cuda {

inline constexpr int warp_size = 32;

/// 16 bytes, the widest load and store of a thread.
struct alignas(16) Word4 {
  std::uint32_t word[4];
};

/// Four neighbours at a multiple of 16 bytes.
struct alignas(16) Float4 {
  float number[4];
};

LOWRANK_DEVICE bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % sizeof(Float4) == 0; }
/// Numbers i … i + 3 of an array of `size`, those past its end zero; one load where they are aligned.
LOWRANK_DEVICE Float4 load_four(const float* x, Index i, Index size) {
  if (i + 4 <= size && is_aligned(x + i)) return *reinterpret_cast<const Float4*>(x + i);
  Float4 four = {};
  for (int n = 0; n < 4; ++n)
    if (i + n < size) four.number[n] = x[i + n];
  return four;
}
LOWRANK_DEVICE void store_four(const Float4& four, float* y, Index i, Index size) {
  if (i + 4 <= size && is_aligned(y + i)) {
    *reinterpret_cast<Float4*>(y + i) = four;
    return;
  }
  for (int n = 0; n < 4; ++n)
    if (i + n < size) y[i + n] = four.number[n];
}

/// i / by and i % by, in 32 bits where they suffice: a division of 64 takes a GPU a hundred instructions.
struct Quotient {
  Index whole;
  int rest;
};
LOWRANK_DEVICE Quotient divide(Index i, int by) {
  if (i <= Index{0xffffffff}) {
    const auto small = static_cast<std::uint32_t>(i), divisor = static_cast<std::uint32_t>(by);
    return {static_cast<Index>(small / divisor), static_cast<int>(small % divisor)};
  }
  return {i / by, static_cast<int>(i % by)};
}

/// How many groups of asynchronous copies may still be under way.
template <int Count>
struct Pending {};

/// Blocks of a grid, threads of a block, bytes of its shared memory.
struct LaunchShape {
  unsigned x = 1, y = 1, z = 1;
  int threads = 128;
  std::size_t shared_bytes = 0;
};

/// Kernels that say `starts_early` may begin, on sm_90 and newer, while the kernel before them ends: until wait_for_previous() they touch
/// nothing but memory that no kernel writes, such as weights. allow_next() lets the kernel behind them begin likewise.
template <class Kernel>
concept StartsEarly = requires {
  requires Kernel::starts_early;
};

template <class T, class Simt>
LOWRANK_DEVICE T& shared_as(Simt& t) {
  return *reinterpret_cast<T*>(t.shared());
}

/// The bits of a and b as bfloat16 (to nearest, ties to even), a in the low half: two neighbours of a row.
LOWRANK_DEVICE std::uint32_t bfloat16_pair(float a, float b) {
#if defined(__CUDA_ARCH__)  // one instruction, of sm_80 and newer
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
  return pair;
#else
  return static_cast<std::uint32_t>(BFloat16(a).bits) | static_cast<std::uint32_t>(BFloat16(b).bits) << 16;
#endif
}
constexpr float low_bfloat16(std::uint32_t pair) { return std::bit_cast<float>(pair << 16); }
constexpr float high_bfloat16(std::uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

/// Σ over the lanes of a warp, in every lane the same bits.
template <class Simt>
LOWRANK_DEVICE float warp_sum(Simt& t, float value) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value += t.shuffle_xor(value, mask);
  return value;
}
template <class Simt>
LOWRANK_DEVICE float warp_max(Simt& t, float value) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value = std::fmax(value, t.shuffle_xor(value, mask));
  return value;
}

/// Σ over the threads of a block, in every thread the same bits; scratch holds a number a warp. Every thread must call it.
template <class Simt>
LOWRANK_DEVICE float block_sum(Simt& t, float value, float* scratch) {
  const float part = warp_sum(t, value);
  t.sync();  // a sum before this one may still be read
  if (t.lane() == 0) scratch[t.warp()] = part;
  t.sync();
  float sum = 0;
  for (int w = 0; w < t.threads() / warp_size; ++w) sum += scratch[w];
  return sum;
}
template <class Simt>
LOWRANK_DEVICE float block_max(Simt& t, float value, float* scratch) {
  const float part = warp_max(t, value);
  t.sync();
  if (t.lane() == 0) scratch[t.warp()] = part;
  t.sync();
  float largest = scratch[0];
  for (int w = 1; w < t.threads() / warp_size; ++w) largest = std::fmax(largest, scratch[w]);
  return largest;
}

/// Row (0 … 7) that a lane's addresses of load_matrices name, and the matrix (0 … 3).
constexpr int matrix_row(int lane) { return lane % 8; }
constexpr int matrix_index(int lane) { return lane / 8; }

/// A [16, 16] out of rows of shared memory: element (i, k) at from[i * stride + k].
template <class Simt>
LOWRANK_DEVICE void load_a(Simt& t, std::uint32_t (&a)[4], const BFloat16* from, int stride) {
  const int part = matrix_index(t.lane());
  t.load_matrices(a, from + (matrix_row(t.lane()) + part % 2 * 8) * stride + part / 2 * 8);
}
/// The same where the depth runs down the rows: element (i, k) at from[k * stride + i].
template <class Simt>
LOWRANK_DEVICE void load_a_transposed(Simt& t, std::uint32_t (&a)[4], const BFloat16* from, int stride) {
  const int part = matrix_index(t.lane());
  t.load_matrices_transposed(a, from + (matrix_row(t.lane()) + part / 2 * 8) * stride + part % 2 * 8);
}
/// Two neighbours of B, [16, 16] together: element (k, j) at from[j * stride + k]; b[0], b[1] are columns 0 … 7 and 8 … 15.
template <class Simt>
LOWRANK_DEVICE void load_b(Simt& t, std::uint32_t (&b)[2][2], const BFloat16* from, int stride) {
  std::uint32_t r[4];
  const int part = matrix_index(t.lane());
  t.load_matrices(r, from + (matrix_row(t.lane()) + part / 2 * 8) * stride + part % 2 * 8);
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}
/// The same where the depth runs down the rows: element (k, j) at from[k * stride + j].
template <class Simt>
LOWRANK_DEVICE void load_b_transposed(Simt& t, std::uint32_t (&b)[2][2], const BFloat16* from, int stride) {
  std::uint32_t r[4];
  const int part = matrix_index(t.lane());
  t.load_matrices_transposed(r, from + (matrix_row(t.lane()) + part % 2 * 8) * stride + part / 2 * 8);
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
