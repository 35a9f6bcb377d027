#pragma once

/// One thread of a GPU, as kernels see it (cuda/kernels/simt.hpp): each member is an instruction or two. Device code of nvcc only.

#include <cstddef>
#include <cstdint>

#include <lowrank/cuda/kernels/wgmma.hpp>

#if defined(__CUDACC__)

/// Whether this pass of the compiler makes code that may have wgmma.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define LOWRANK_HAS_WGMMA 1
#else
#define LOWRANK_HAS_WGMMA 0
#endif

// Operands of an instruction that names 32 or 64 sums.
#define LOWRANK_SUMS_8(d, i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define LOWRANK_SUMS_32(d, i) LOWRANK_SUMS_8(d, i), LOWRANK_SUMS_8(d, i + 8), LOWRANK_SUMS_8(d, i + 16), LOWRANK_SUMS_8(d, i + 24)
#define LOWRANK_SUMS_64(d) LOWRANK_SUMS_32(d, 0), LOWRANK_SUMS_32(d, 32)
#define LOWRANK_NAMES_32                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LOWRANK_NAMES_64                                                             \
  LOWRANK_NAMES_32                                                                   \
  ", "                                                                               \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LOWRANK_WGMMA(width, names, a, b, transposed, ...)                                                                          \
  asm volatile(                                                                                                                     \
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 1, 0;\n"                                                                  \
      "wgmma.mma_async.sync.aligned.m64n" #width "k16.f32.bf16.bf16 {" names "}, %" #a ", %" #b ", accumulate, 1, 1, %" #transposed \
      ", 0;\n}"                                                                                                                     \
      : __VA_ARGS__                                                                                                                 \
      : "l"(left), "l"(right), "n"(ATransposed))

namespace lowrank::inline LOWRANK_ABI::cuda {

class DeviceThread {
 public:
  LOWRANK_DEVICE int thread() const { return static_cast<int>(threadIdx.x); }
  LOWRANK_DEVICE int threads() const { return static_cast<int>(blockDim.x); }
  LOWRANK_DEVICE int lane() const { return thread() % warp_size; }
  LOWRANK_DEVICE int warp() const { return thread() / warp_size; }
  LOWRANK_DEVICE int block_x() const { return static_cast<int>(blockIdx.x); }
  LOWRANK_DEVICE int block_y() const { return static_cast<int>(blockIdx.y); }
  LOWRANK_DEVICE int block_z() const { return static_cast<int>(blockIdx.z); }

  LOWRANK_DEVICE std::byte* shared() const {
    extern __shared__ Word4 lowrank_shared_memory[];
    return reinterpret_cast<std::byte*>(lowrank_shared_memory);
  }

  LOWRANK_DEVICE void sync() const { __syncthreads(); }
  LOWRANK_DEVICE void sync_warp() const { __syncwarp(); }
  template <class T>
  LOWRANK_DEVICE T shuffle_xor(T value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }

  LOWRANK_DEVICE void mma(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) const {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  LOWRANK_DEVICE void load_matrices(std::uint32_t (&r)[4], const BFloat16* row) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address(row))
                 : "memory");
  }
  LOWRANK_DEVICE void load_matrices_transposed(std::uint32_t (&r)[4], const BFloat16* row) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address(row))
                 : "memory");
  }

  LOWRANK_DEVICE void copy_async(void* shared, const void* global, int bytes) const {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address(shared)), "l"(global), "r"(bytes) : "memory");
  }
  LOWRANK_DEVICE void commit() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int Count>
  LOWRANK_DEVICE void wait(Pending<Count>) const {
    asm volatile("cp.async.wait_group %0;" ::"n"(Count) : "memory");
  }
  LOWRANK_DEVICE Word4 stream(const Word4* global) const {
    Word4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
                 : "l"(global));
    return v;
  }

  LOWRANK_DEVICE std::uint32_t shared_address(const void* shared) const { return address(shared); }

  LOWRANK_DEVICE std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) const {
    return __byte_perm(a, b, selector);
  }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  LOWRANK_DEVICE void allow_next() const { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
  LOWRANK_DEVICE void wait_for_previous() const { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
  LOWRANK_DEVICE void allow_next() const {}
  LOWRANK_DEVICE void wait_for_previous() const {}
#endif

#if LOWRANK_HAS_WGMMA
  LOWRANK_DEVICE void fence_async() const { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
  LOWRANK_DEVICE void wgmma_fence() const { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
  LOWRANK_DEVICE void wgmma_commit() const { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  template <int Count>
  LOWRANK_DEVICE void wgmma_wait(float (&sums)[Count]) const {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    LOWRANK_CUDA_UNROLL
    for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(sums[i])::"memory");  // no read of the sums moves before the wait
  }
  template <bool ATransposed>
  LOWRANK_DEVICE void wgmma(float (&sums)[32], std::uint64_t left, std::uint64_t right) const {
    LOWRANK_WGMMA(64, LOWRANK_NAMES_32, 32, 33, 34, LOWRANK_SUMS_32(sums, 0));
  }
  template <bool ATransposed>
  LOWRANK_DEVICE void wgmma(float (&sums)[64], std::uint64_t left, std::uint64_t right) const {
    LOWRANK_WGMMA(128, LOWRANK_NAMES_64, 64, 65, 66, LOWRANK_SUMS_64(sums));
  }
#endif

 private:
  LOWRANK_DEVICE static std::uint32_t address(const void* shared) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared)); }
};

#undef LOWRANK_WGMMA
#undef LOWRANK_NAMES_32
#undef LOWRANK_NAMES_64
#undef LOWRANK_SUMS_8
#undef LOWRANK_SUMS_32
#undef LOWRANK_SUMS_64

/// Blocks that a multiprocessor must have room for: `least_blocks` of kernels that say it.
template <class Kernel>
constexpr int least_blocks() {
  if constexpr (requires { Kernel::least_blocks; }) return Kernel::least_blocks;
  return 1;
}

/// The entry of every kernel. One that needs wgmma is empty but on sm_90a; has_wgmma_code tells whether it can be launched.
template <class Kernel>
__global__ void __launch_bounds__(Kernel::most_threads, least_blocks<Kernel>()) run_kernel(const __grid_constant__ Kernel kernel) {
  if constexpr (LOWRANK_HAS_WGMMA || !UsesWgmma<Kernel>) {
    DeviceThread t;
    kernel(t);
  }
}

/// Its shared memory tells the host which code the driver loaded: only that of sm_90a has any.
template <class = void>
__global__ void wgmma_probe(int* out) {
#if LOWRANK_HAS_WGMMA
  __shared__ int marks[warp_size];
  marks[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = marks[warp_size - 1 - threadIdx.x];
#else
  static_cast<void>(out);
#endif
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
