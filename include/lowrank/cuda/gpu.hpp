#pragma once

/// A Machine on an NVIDIA GPU, and open_gpu(). For nvcc, in one unit of a program:
///
///   // gpu.cu
///   #include <lowrank/cuda/gpu.hpp>
///
/// compiled with -std=c++20 --expt-relaxed-constexpr for the architectures that shall be served (sm_90a brings wgmma). With
/// -DLOWRANK_CUDA_BLAS and cuBLAS linked, products of many tokens may go through it (multiply_slices of cuda/launch.hpp). The rest of the
/// program includes lowrank/cuda.hpp and needs no nvcc.

#include <cstddef>
#include <memory>
#include <string_view>
#include <type_traits>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/cuda/kernels/thread.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/cuda/machine.hpp>
#include <lowrank/error.hpp>

#if defined(__CUDACC__)

#include <cuda_runtime.h>
#if defined(LOWRANK_CUDA_BLAS)
#include <cublas_v2.h>
#endif

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A call that CUDA refused, or work on the device that failed before it; the text has CUDA's own name for it.
struct CudaError : Error {
  using Error::Error;
};

inline void expect_success(cudaError_t status, std::string_view operation) {
  check<CudaError>(status == cudaSuccess, operation, cudaGetErrorName(status), ": ", cudaGetErrorString(status),
                   status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver
                       ? "; run on a machine with an NVIDIA GPU and a driver as new as the toolkit, or on the CPU"
                       : "");
}

class GpuHeap : public Heap {
 public:
  explicit GpuHeap(int device) : device_(device) {}

  std::byte* allocate(std::size_t bytes) override {
    expect_success(cudaSetDevice(device_), "reserve");
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is answered with null, and not an error of what comes next
      return nullptr;
    }
    expect_success(status, "reserve");
    return static_cast<std::byte*>(memory);
  }
  void release(std::byte* memory) noexcept override { cudaFree(memory); }  // waits for what is under way

 private:
  int device_;
};

/// A step as one graph of CUDA: one call instead of hundreds.
class RecordedGraph : public RecordedWork {
 public:
  RecordedGraph(cudaStream_t stream, cudaGraph_t recorded) : stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&graph_, recorded, 0);
    cudaGraphDestroy(recorded);
    expect_success(status, "graph: instantiate");
  }
  ~RecordedGraph() override { cudaGraphExecDestroy(graph_); }
  void run() override { expect_success(cudaGraphLaunch(graph_, stream_), "graph: launch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};

#if defined(LOWRANK_CUDA_BLAS)

inline void expect_success(cublasStatus_t status, std::string_view operation) {
  check<CudaError>(status == CUBLAS_STATUS_SUCCESS, operation, cublasGetStatusName(status), ": ", cublasGetStatusString(status));
}

/// cuBLAS on a stream: bfloat16 factors, sums in fp32. Owns its workspace, so that its work may be recorded, and a slice of 40 MiB.
class Blas {
 public:
  explicit Blas(cudaStream_t stream) {
    expect_success(cudaMalloc(&memory_, slice_bytes + workspace_bytes), "cublas: memory");
    expect_success(cublasCreate(&handle_), "cublas");
    expect_success(cublasSetStream(handle_, stream), "cublas: stream");
    expect_success(cublasSetWorkspace(handle_, static_cast<std::byte*>(memory_) + slice_bytes, workspace_bytes), "cublas: workspace");
  }
  ~Blas() {
    if (handle_) cublasDestroy(handle_);
    cudaFree(memory_);
  }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  SliceBuffer slice() const { return {static_cast<BFloat16*>(memory_), Index{slice_bytes / sizeof(BFloat16)}}; }

  /// cuBLAS counts columns first: its left factor is ours read along its rows, so it is transposed when ours is not.
  void multiply(const DenseProduct& p) const {
    const float one = 1, factor = p.accumulate ? 1.0f : 0.0f;
    expect_success(cublasGemmEx(handle_, p.transposed ? CUBLAS_OP_N : CUBLAS_OP_T, CUBLAS_OP_N, p.rows, p.tokens, p.depth, &one, p.left,
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
  static constexpr std::size_t slice_bytes = std::size_t{40} << 20, workspace_bytes = std::size_t{32} << 20;
  void* memory_ = nullptr;
  cublasHandle_t handle_ = nullptr;
};

#endif

/// One device and one stream.
class Gpu : public Machine {
 public:
  explicit Gpu(int device) : Machine(std::make_shared<GpuHeap>(device)), stream_(open(device)) {
    expect_success(cudaDeviceGetAttribute(&traits_.multiprocessors, cudaDevAttrMultiProcessorCount, device), "open GPU");
    expect_success(cudaDeviceGetAttribute(&traits_.capability_major, cudaDevAttrComputeCapabilityMajor, device), "open GPU");
    cudaFuncAttributes probe{};
    expect_success(cudaFuncGetAttributes(&probe, wgmma_probe<>), "open GPU");
    traits_.has_wgmma = probe.sharedSizeBytes > 0;
#if defined(LOWRANK_CUDA_BLAS)
    traits_.has_blas = true;
#endif
  }

  DeviceTraits traits() const override { return traits_; }
#if defined(LOWRANK_CUDA_BLAS)
  SliceBuffer slice() const override { return blas_.slice(); }
  void multiply(const DenseProduct& product) override { blas_.multiply(product); }
  void multiply(const DenseOuter& product) override { blas_.multiply(product); }
#endif
  void launch(const AnyKernel& any) override {
    any.visit([this](const auto& kernel) { start(kernel); });
  }
  void copy(const std::byte* from, std::byte* to, std::size_t bytes) override {
    expect_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_.get()), "copy");
  }
  void clear(std::byte* to, std::size_t bytes) override { expect_success(cudaMemsetAsync(to, 0, bytes, stream_.get()), "clear"); }
  void synchronize() override { expect_success(cudaStreamSynchronize(stream_.get()), "synchronize"); }
  void download(const std::byte* from, void* to, std::size_t bytes) override {
    expect_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_.get()), "download");
    synchronize();
  }

 protected:
  void copy_in(const void* from, std::byte* to, std::size_t bytes) override {
    expect_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_.get()), "upload");
  }
  void begin_recording() override {
    synchronize();
    expect_success(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeRelaxed), "graph: begin");
  }
  std::unique_ptr<RecordedWork> end_recording() override {
    cudaGraph_t recorded = nullptr;
    expect_success(cudaStreamEndCapture(stream_.get(), &recorded), "graph: end");
    return std::make_unique<RecordedGraph>(stream_.get(), recorded);
  }
  /// Pinned, as a graph's copies need it.
  std::shared_ptr<std::byte> host_memory(std::size_t bytes) override {
    void* memory = nullptr;
    expect_success(cudaMallocHost(&memory, bytes > 0 ? bytes : 1), "recording: host memory");
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), [](std::byte* pinned) { cudaFreeHost(pinned); });
  }

 private:
  struct Close {
    void operator()(cudaStream_t stream) const {
      cudaStreamSynchronize(stream);  // before the memory that its work uses goes
      cudaStreamDestroy(stream);
    }
  };
  using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Close>;

  static Stream open(int device) {
    expect_success(cudaSetDevice(device), concat("open GPU ", device));
    cudaStream_t stream = nullptr;
    expect_success(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), concat("open GPU ", device));
    return Stream(stream);
  }

  template <class Kernel>
  void start(const Kernel& kernel) {
    const LaunchShape shape = kernel.shape();
    if (shape.x == 0 || shape.y == 0 || shape.z == 0) return;
    check<ShapeError>(shape.y <= 65535 && shape.z <= 65535, "launch", "a grid of ", shape.x, " x ", shape.y, " x ", shape.z,
                      " blocks; a device takes 65535 in its second and third direction: use fewer tokens at a time");
    if (shape.shared_bytes > 48 * 1024)
      expect_success(
          cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
          "launch: shared memory");
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(shape.x, shape.y, shape.z);
    config.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = stream_.get();
    config.attrs = &early;
    config.numAttrs = StartsEarly<Kernel> && traits_.capability_major >= 9 ? 1 : 0;
    expect_success(cudaLaunchKernelEx(&config, run_kernel<Kernel>, kernel), "launch");
  }

  Stream stream_;
  DeviceTraits traits_;
#if defined(LOWRANK_CUDA_BLAS)
  Blas blas_{stream_.get()};
#endif
};

std::shared_ptr<Machine> open_gpu(int index) { return std::make_shared<Gpu>(index); }

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
