#pragma once

/// One thread of a GPU, as kernels see it (cuda/simt.hpp): each member is an instruction or two. Device code of nvcc only.

#include <lowrank/cuda/simt.hpp>

#if defined(__CUDACC__)

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
  LOWRANK_DEVICE void load_matrices(std::uint32_t (&r)[4], const bfloat16* row) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address(row))
                 : "memory");
  }
  LOWRANK_DEVICE void load_matrices_turned(std::uint32_t (&r)[4], const bfloat16* row) const {
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

 private:
  LOWRANK_DEVICE static std::uint32_t address(const void* shared) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared)); }
};

/// The entry of every kernel.
template <class Kernel>
__global__ void __launch_bounds__(Kernel::most_threads) run_kernel(const __grid_constant__ Kernel kernel) {
  DeviceThread t;
  kernel(t);
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
