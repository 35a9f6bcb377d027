#pragma once

/// A launcher that brings cuBLAS along, for products of many tokens (cuda/slices.hpp). For nvcc; a program that includes this header links
/// CUDA::cublas, others need not.

#include <lowrank/cuda/runtime.hpp>
#include <lowrank/cuda/slices.hpp>

#if defined(__CUDACC__)

#include <cublas_v2.h>

namespace lowrank::inline LOWRANK_ABI::cuda {

inline void expect_success(cublasStatus_t status, std::string_view operation) {
  check<CudaError>(status == CUBLAS_STATUS_SUCCESS, operation, cublasGetStatusName(status), ": ", cublasGetStatusString(status));
}

/// A Launcher whose products of many tokens go through cuBLAS where choose_product says so. Owns a workspace for cuBLAS, so that its work
/// may be recorded in a StepGraph, and a buffer of 40 MiB.
///
///   cuda::BlasLauncher launch(stream);
///   cuda::multiply<false>(launch, product, scratch);
class BlasLauncher : public Launcher {
 public:
  explicit BlasLauncher(const Stream& stream, Index slice_numbers = Index{5} << 22)
      : Launcher(stream), slice_(static_cast<std::size_t>(ceil_div(slice_numbers, 8))), workspace_(std::size_t{1} << 21) {
    expect_success(cublasCreate(&handle_), "cublas");
    expect_success(cublasSetStream(handle_, stream.get()), "cublas: stream");
    expect_success(cublasSetWorkspace(handle_, workspace_.data(), workspace_.size() * sizeof(Word4)), "cublas: workspace");
  }
  ~BlasLauncher() {
    if (handle_) cublasDestroy(handle_);
  }
  BlasLauncher(const BlasLauncher&) = delete;
  BlasLauncher& operator=(const BlasLauncher&) = delete;

  SliceBuffer slice() const { return {reinterpret_cast<bfloat16*>(slice_.data()), static_cast<Index>(slice_.size()) * 8}; }

  /// bfloat16 factors, sums in fp32. cuBLAS counts columns first: its left factor is ours read along its rows, so it is turned when ours is
  /// not.
  void multiply(const DenseProduct& p) const {
    const float one = 1, factor = p.accumulate ? 1.0f : 0.0f;
    expect_success(cublasGemmEx(handle_, p.turned ? CUBLAS_OP_N : CUBLAS_OP_T, CUBLAS_OP_N, p.rows, p.tokens, p.depth, &one, p.left,
                                CUDA_R_16BF, static_cast<int>(p.left_stride), p.right, CUDA_R_16BF, static_cast<int>(p.right_stride),
                                &factor, p.y, CUDA_R_32F, static_cast<int>(p.ldy), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                   "cublas: product");
  }
  void multiply(const DenseOuter& p) const {
    const float one = 1;
    expect_success(cublasGemmEx(handle_, CUBLAS_OP_N, CUBLAS_OP_T, p.right.depth, p.left.depth, p.tokens, &p.scale, p.right.data,
                                CUDA_R_16BF, static_cast<int>(p.right.stride), p.left.data, CUDA_R_16BF, static_cast<int>(p.left.stride),
                                &one, p.c, CUDA_R_32F, p.right.depth, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                   "cublas: outer product");
  }

 private:
  cublasHandle_t handle_ = nullptr;
  DeviceArray<Word4> slice_, workspace_;
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
