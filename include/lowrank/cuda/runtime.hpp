#pragma once

/// Memory, streams, events, launches and graphs of a device, with every failure an exception that names the operation. For nvcc.

#include <span>
#include <string_view>
#include <utility>

#include <lowrank/cuda/thread.hpp>
#include <lowrank/error.hpp>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

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

class Stream;

/// A point in a stream's work.
class Event {
 public:
  Event() { expect_success(cudaEventCreate(&event_), "event"); }
  ~Event() {
    if (event_) cudaEventDestroy(event_);
  }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }

  void record(const Stream& stream);
  void synchronize() const { expect_success(cudaEventSynchronize(event_), "event: synchronize"); }
  /// Milliseconds between two events that have happened.
  float milliseconds_since(const Event& start) const {
    float time = 0;
    expect_success(cudaEventElapsedTime(&time, start.event_, event_), "event: elapsed time");
    return time;
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Work in order; of the current device.
class Stream {
 public:
  Stream() { expect_success(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream"); }
  ~Stream() {
    if (stream_) cudaStreamDestroy(stream_);
  }
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }

  void synchronize() const { expect_success(cudaStreamSynchronize(stream_), "stream: synchronize"); }
  /// What comes next waits for the event.
  void wait(const Event& event) const { expect_success(cudaStreamWaitEvent(stream_, event.get(), 0), "stream: wait"); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

inline void Event::record(const Stream& stream) { expect_success(cudaEventRecord(event_, stream.get()), "event: record"); }

/// Numbers in device memory; not initialized. Throws CudaError where there is no room.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t size) : size_(size) {
    if (size > 0)
      expect_success(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T)), concat("allocate ", size * sizeof(T), " bytes"));
  }
  /// A copy of host memory; the stream may still be copying when this returns.
  DeviceArray(std::span<const T> from, const Stream& stream) : DeviceArray(from.size()) { upload(from, stream); }
  ~DeviceArray() {
    if (data_) cudaFree(data_);
  }
  DeviceArray(DeviceArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }

  /// Copies the first from.size() numbers in. Throws ShapeError when they are more than there is room for.
  void upload(std::span<const T> from, const Stream& stream) {
    check<ShapeError>(from.size() <= size_, "upload", from.size(), " numbers into an array of ", size_);
    if (from.empty()) return;
    expect_success(cudaMemcpyAsync(data_, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream.get()), "upload");
  }
  /// Copies the first to.size() numbers out, and waits for them.
  void download(std::span<T> to, const Stream& stream) const {
    check<ShapeError>(to.size() <= size_, "download", to.size(), " numbers from an array of ", size_);
    if (!to.empty()) expect_success(cudaMemcpyAsync(to.data(), data_, to.size_bytes(), cudaMemcpyDeviceToHost, stream.get()), "download");
    stream.synchronize();
  }
  void clear(const Stream& stream) {
    if (size_ > 0) expect_success(cudaMemsetAsync(data_, 0, size_ * sizeof(T), stream.get()), "clear");
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Launches kernels into a stream.
class Launcher {
 public:
  explicit Launcher(const Stream& stream) : stream_(&stream) {
    int device = 0;
    expect_success(cudaGetDevice(&device), "launcher");
    expect_success(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device), "launcher");
    expect_success(cudaDeviceGetAttribute(&capability_major_, cudaDevAttrComputeCapabilityMajor, device), "launcher");
    cudaFuncAttributes probe{};
    expect_success(cudaFuncGetAttributes(&probe, wgmma_probe<>), "launcher");
    has_wgmma_ = probe.sharedSizeBytes > 0;
  }

  int multiprocessors() const { return multiprocessors_; }
  int capability_major() const { return capability_major_; }
  /// The device is of compute capability 9.0 and the program was compiled for sm_90a: kernels that use wgmma can run.
  bool has_wgmma() const { return has_wgmma_; }
  const Stream& stream() const { return *stream_; }

  template <class Kernel>
  void operator()(const Kernel& kernel) {
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
    config.stream = stream_->get();
    config.attrs = &early;
    config.numAttrs = StartsEarly<Kernel> && capability_major_ >= 9 ? 1 : 0;
    expect_success(cudaLaunchKernelEx(&config, run_kernel<Kernel>, kernel), "launch");
  }

 private:
  const Stream* stream_;
  int multiprocessors_ = 0, capability_major_ = 0;
  bool has_wgmma_ = false;
};

/// A training step recorded once and launched as a whole: one call instead of hundreds.
///
/// What a step reads and writes must stay where it is, and numbers that change from step to step must lie in device memory (AdamWNumbers,
/// ids, targets). What a step allocates while it is recorded is allocated once and must live as long as the graph.
class StepGraph {
 public:
  StepGraph() = default;
  ~StepGraph() {
    if (graph_) cudaGraphExecDestroy(graph_);
  }
  StepGraph(StepGraph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
  StepGraph& operator=(StepGraph&& other) noexcept {
    std::swap(graph_, other.graph_);
    return *this;
  }

  /// Records what step() puts into the stream, without running it.
  template <class Step>
  void record(const Stream& stream, const Step& step) {
    begin(stream);
    try {
      step();
    } catch (...) {
      cudaGraph_t abandoned = nullptr;
      cudaStreamEndCapture(stream.get(), &abandoned);
      if (abandoned) cudaGraphDestroy(abandoned);
      throw;
    }
    end(stream);
  }
  /// The two halves of record().
  static void begin(const Stream& stream) {
    expect_success(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed), "graph: begin");
  }
  void end(const Stream& stream) {
    cudaGraph_t recorded = nullptr;
    expect_success(cudaStreamEndCapture(stream.get(), &recorded), "graph: end");
    StepGraph made;
    const cudaError_t status = cudaGraphInstantiate(&made.graph_, recorded, 0);
    cudaGraphDestroy(recorded);
    expect_success(status, "graph: instantiate");
    *this = std::move(made);
  }
  void launch(const Stream& stream) const {
    check<ValueError>(graph_ != nullptr, "graph: launch", "nothing was recorded; call record first");
    expect_success(cudaGraphLaunch(graph_, stream.get()), "graph: launch");
  }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
