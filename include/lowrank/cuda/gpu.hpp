#pragma once

/// A Machine on an NVIDIA GPU, and open_gpu(). For nvcc, in one unit of a program:
///
///   // gpu.cu
///   #include <lowrank/cuda/gpu.hpp>
///
/// compiled with -std=c++20 --expt-relaxed-constexpr for the architectures that shall be served (sm_90a brings wgmma). With
/// -DLOWRANK_CUDA_BLAS and cuBLAS linked, products of many tokens may go through it (cuda/slices.hpp). The rest of the program includes
/// cuda/autograd.hpp or cuda/machine.hpp and needs no nvcc.

#include <lowrank/cuda/machine.hpp>
#include <lowrank/cuda/query.hpp>
#include <lowrank/cuda/runtime.hpp>
#if defined(LOWRANK_CUDA_BLAS)
#include <lowrank/cuda/cublas.hpp>
#endif

#if defined(__CUDACC__)

namespace lowrank::inline LOWRANK_ABI::cuda {

namespace detail {

#if defined(LOWRANK_CUDA_BLAS)
using GpuLauncher = BlasLauncher;
#else
using GpuLauncher = Launcher;
#endif

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

struct RecordedGraph : RecordedWork {
  explicit RecordedGraph(const Stream& of) : stream(of) {}
  void run() override { graph.launch(stream); }

  const Stream& stream;
  StepGraph graph;
};

}  // namespace detail

/// One device and one stream.
class Gpu : public Machine {
 public:
  explicit Gpu(int device) : Machine(std::make_shared<detail::GpuHeap>(select(device))), launcher_(stream_) {}
  ~Gpu() override { cudaStreamSynchronize(stream_.get()); }  // before its memory goes

  DeviceTraits traits() const override { return traits_of(launcher_); }
#if defined(LOWRANK_CUDA_BLAS)
  SliceBuffer slice() const override { return launcher_.slice(); }
  void multiply(const DenseProduct& product) override { launcher_.multiply(product); }
  void multiply(const DenseOuter& product) override { launcher_.multiply(product); }
#endif
  void launch(const AnyKernel& kernel) override {
    std::visit([this](const auto& k) { launcher_(k); }, kernel);
  }
  void copy(const std::byte* from, std::byte* to, std::size_t bytes) override {
    expect_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_.get()), "copy");
  }
  void clear(std::byte* to, std::size_t bytes) override { expect_success(cudaMemsetAsync(to, 0, bytes, stream_.get()), "clear"); }
  void synchronize() override { stream_.synchronize(); }
  void download(const std::byte* from, void* to, std::size_t bytes) override {
    expect_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_.get()), "download");
    stream_.synchronize();
  }

 protected:
  void copy_in(const void* from, std::byte* to, std::size_t bytes) override {
    expect_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_.get()), "upload");
  }
  void begin_recording() override {
    stream_.synchronize();
    StepGraph::begin(stream_);
  }
  std::unique_ptr<RecordedWork> end_recording() override {
    auto work = std::make_unique<detail::RecordedGraph>(stream_);
    work->graph.end(stream_);
    return work;
  }
  /// Pinned, as a graph's copies need it.
  std::shared_ptr<std::byte> host_memory(std::size_t bytes) override {
    void* memory = nullptr;
    expect_success(cudaMallocHost(&memory, bytes > 0 ? bytes : 1), "recording: host memory");
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), [](std::byte* pinned) { cudaFreeHost(pinned); });
  }

 private:
  static int select(int device) {
    expect_success(cudaSetDevice(device), concat("open GPU ", device));
    return device;
  }

  Stream stream_;
  detail::GpuLauncher launcher_;
};

std::shared_ptr<Machine> open_gpu(int index) { return std::make_shared<Gpu>(index); }

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
