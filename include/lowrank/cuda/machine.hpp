#pragma once

/// A GPU as host code sees it: memory, copies, launches. No CUDA header, and any C++20 compiler: the one unit that nvcc compiles
/// (cuda/gpu.hpp) derives from Machine, and so does the model of a GPU in the tests.

#include <cstddef>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

struct AnyKernel;     // cuda/kernels/list.hpp
struct DenseProduct;  // cuda/launch.hpp
struct DenseOuter;

/// What the choice between kernels depends on.
struct DeviceTraits {
  int multiprocessors = 1;
  int capability_major = 8;  ///< of the compute capability: 8 (Ampere, Ada), 9 (Hopper), 10 and 12 (Blackwell)
  bool has_wgmma = false;    ///< capability 9.0 and code for sm_90a
  bool has_blas = false;     ///< the machine brings cuBLAS along (LOWRANK_CUDA_BLAS)
};

/// Scratch for partial sums; work is cut into no more pieces than it holds.
struct Scratch {
  float* data = nullptr;
  Index size = 0;
};

/// Room for a decoded slice, 40 MiB where the L2 cache holds 50: all of a matrix [4096, 4096] with its update.
struct SliceBuffer {
  BFloat16* data = nullptr;
  Index size = 0;  ///< numbers
};

/// Where a machine's memory comes from.
class Heap {
 public:
  virtual ~Heap() = default;
  /// At least `bytes` at a 256-byte boundary, or null where there is no room.
  virtual std::byte* allocate(std::size_t bytes) = 0;
  virtual void release(std::byte* memory) noexcept = 0;
};

/// A piece of device memory; goes back to where it came from when the last owner lets go.
using Memory = std::shared_ptr<std::byte>;

/// Pieces that were given back, by size, to be given out again: after the first step a training step asks the heap for nothing.
///
/// Work on a machine runs in order, so a piece may be reused as soon as it is given back.
class Pool : public std::enable_shared_from_this<Pool> {
 public:
  explicit Pool(std::shared_ptr<Heap> heap) : heap_(std::move(heap)) {}
  ~Pool() { trim(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Throws Error where there is no room.
  Memory reserve(std::size_t bytes) { return give(size_class(bytes)); }
  /// The same without the eighth: for what stays, such as weights.
  Memory reserve_exactly(std::size_t bytes);
  /// Gives everything unused back to the heap.
  void trim();

  /// Bytes that a request takes: an eighth more at most, so that nearly equal arrays share pieces.
  static std::size_t size_class(std::size_t bytes);

 private:
  Memory give(std::size_t size);
  std::byte* take(std::size_t size);

  std::shared_ptr<Heap> heap_;
  std::map<std::size_t, std::vector<std::byte*>> free_;
};

/// Work that a machine recorded, to be run again as a whole.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void run() = 0;
};

/// One GPU and its work in order. Threads may not share one.
class Machine : public std::enable_shared_from_this<Machine> {
 public:
  explicit Machine(std::shared_ptr<Heap> heap);
  virtual ~Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  virtual DeviceTraits traits() const = 0;
  /// Room for a decoded slice, and a plain product of it; of machines whose traits say has_blas.
  virtual SliceBuffer slice() const { return {}; }
  virtual void multiply(const DenseProduct& product);
  virtual void multiply(const DenseOuter& product);
  /// Puts a kernel behind the work so far. Throws an Error that names what was refused.
  virtual void launch(const AnyKernel& kernel) = 0;
  virtual void copy(const std::byte* from, std::byte* to, std::size_t bytes) = 0;
  virtual void clear(std::byte* to, std::size_t bytes) = 0;
  /// Waits for all work so far.
  virtual void synchronize() = 0;
  /// Copies to the host and waits for it.
  virtual void download(const std::byte* from, void* to, std::size_t bytes) = 0;

  /// Copies from the host, whose memory may change afterwards. In a recording the bytes are kept and copied again in every run; those that
  /// are `read_anew` come each time from where they were, which must then hold as many.
  void upload(const void* from, std::byte* to, std::size_t bytes, bool read_anew = false);
  /// The same into memory of its own.
  Memory uploaded(const void* from, std::size_t bytes, bool read_anew = false);

  Memory reserve(std::size_t bytes) { return pool_->reserve(bytes); }
  Memory reserve_exactly(std::size_t bytes) { return pool_->reserve_exactly(bytes); }
  /// Room for partial sums, shared by all products: they run one after the other.
  Scratch scratch();

  /// The machine of this thread's Use. Throws Error where there is none.
  static Machine& current();

 protected:
  virtual void copy_in(const void* from, std::byte* to, std::size_t bytes) = 0;
  virtual void begin_recording() = 0;
  virtual std::unique_ptr<RecordedWork> end_recording() = 0;
  /// Host memory that copies may read while a recording runs.
  virtual std::shared_ptr<std::byte> host_memory(std::size_t bytes) = 0;

 private:
  friend class Use;
  friend class Recording;

  struct Source {
    const void* from;
    std::byte* to;
    std::size_t bytes;
  };
  struct Staging {
    std::shared_ptr<std::byte> memory;
    std::size_t size = 0, used = 0;
    std::vector<Source> sources = {};

    std::byte* take(std::size_t bytes);
  };

  static inline thread_local Machine* current_ = nullptr;

  std::shared_ptr<Heap> heap_;
  std::shared_ptr<Pool> pool_;
  Memory scratch_;
  std::size_t uploaded_ = 0;
  Staging* staging_ = nullptr;
};

/// Makes a machine the one that new arrays of this thread live on, as long as this lives.
class Use {
 public:
  explicit Use(std::shared_ptr<Machine> machine) : machine_(std::move(machine)), before_(Machine::current_) {
    Machine::current_ = machine_.get();
  }
  ~Use() { Machine::current_ = before_; }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  std::shared_ptr<Machine> machine_;
  Machine* before_;
};

/// A step recorded once and run as a whole: one call instead of thousands of launches.
///
/// The constructor runs step() once as it is and once more to record it, which runs nothing; run() is the recorded step. A step reads the
/// host only through upload(), never waits for the device, and does the same each time. It has memory of its own, so arrays that it leaves
/// (a loss) are overwritten by each run. Throws Error.
class Recording {
 public:
  template <class Step>
  Recording(Machine& machine, const Step& step) : Recording(machine) {
    try {
      const std::size_t before = machine.uploaded_;
      step();
      begin(machine.uploaded_ - before);
      step();
      end();
    } catch (...) {
      abandon();
      throw;
    }
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  void run();

 private:
  explicit Recording(Machine& machine);
  void begin(std::size_t staged_bytes);
  void end();
  /// Ends a recording that failed; what CUDA says of it must not hide why it failed.
  void abandon();

  std::shared_ptr<Machine> machine_;
  std::shared_ptr<Pool> pool_;  // the step's own
  Machine::Staging staging_;
  std::unique_ptr<RecordedWork> work_;
};

/// The GPU of that number, counted as cuda::devices() does. Defined by lowrank/cuda/gpu.hpp, which one unit of the program includes and
/// nvcc compiles. Throws Error where there is none.
std::shared_ptr<Machine> open_gpu(int index = 0);

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/machine.inl>
#endif
