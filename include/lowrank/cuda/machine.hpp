#pragma once

/// A GPU as host code sees it: memory, copies, launches. No CUDA header, and any C++20 compiler: the one unit that nvcc compiles
/// (cuda/gpu.hpp) derives from Machine, and so does the model of a GPU in the tests.

#include <bit>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/cuda/kernel_list.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

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
  Memory reserve_exactly(std::size_t bytes) { return give((std::max<std::size_t>(1, bytes) + 511) / 512 * 512); }
  /// Gives everything unused back to the heap.
  void trim() {
    for (auto& [size, pieces] : free_)
      for (std::byte* piece : pieces) heap_->release(piece);
    free_.clear();
  }

  /// Bytes that a request takes: an eighth more at most, so that nearly equal arrays share pieces.
  static std::size_t size_class(std::size_t bytes) {
    const std::size_t step = std::max<std::size_t>(512, std::bit_floor(std::max<std::size_t>(1, bytes)) / 8);
    return (std::max<std::size_t>(1, bytes) + step - 1) / step * step;
  }

 private:
  Memory give(std::size_t size) {
    std::byte* memory = take(size);
    if (memory == nullptr) memory = heap_->allocate(size);
    if (memory == nullptr) {
      trim();
      memory = heap_->allocate(size);
    }
    check<Error>(memory != nullptr, "reserve", "the device has no room for ", size,
                 " bytes; use fewer tokens at a time, or keep less for the backward pass (checkpoint)");
    return Memory(memory, [pool = shared_from_this(), size](std::byte* piece) { pool->free_[size].push_back(piece); });
  }
  std::byte* take(std::size_t size) {
    const auto found = free_.find(size);
    if (found == free_.end() || found->second.empty()) return nullptr;
    std::byte* const piece = found->second.back();
    found->second.pop_back();
    return piece;
  }

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
  explicit Machine(std::shared_ptr<Heap> heap) : heap_(std::move(heap)), pool_(std::make_shared<Pool>(heap_)) {}
  virtual ~Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  virtual DeviceTraits traits() const = 0;
  /// Room for a decoded slice, and a plain product of it; of machines whose traits say has_blas.
  virtual SliceBuffer slice() const { return {}; }
  virtual void multiply(const DenseProduct&) { fail<Error>("multiply", "this machine has no dense product"); }
  virtual void multiply(const DenseOuter&) { fail<Error>("multiply", "this machine has no dense product"); }
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
  void upload(const void* from, std::byte* to, std::size_t bytes, bool read_anew = false) {
    if (bytes == 0) return;
    uploaded_ += round_up_256(bytes);
    if (staging_ == nullptr) return copy_in(from, to, bytes);
    std::byte* const at = staging_->take(bytes);
    std::memcpy(at, from, bytes);
    if (read_anew) staging_->sources.push_back({from, at, bytes});
    copy_in(at, to, bytes);
  }

  Memory reserve(std::size_t bytes) { return pool_->reserve(bytes); }
  Memory reserve_exactly(std::size_t bytes) { return pool_->reserve_exactly(bytes); }
  /// Room for partial sums, shared by all products: they run one after the other.
  Scratch scratch() {
    constexpr Index numbers = Index{1} << 24;
    if (!scratch_) scratch_ = reserve(static_cast<std::size_t>(numbers) * sizeof(float));
    return {reinterpret_cast<float*>(scratch_.get()), numbers};
  }

  /// The machine of this thread's Use. Throws Error where there is none.
  static Machine& current() {
    check<Error>(current_ != nullptr, "cuda", "no GPU is in use; open one (cuda::open_gpu) and hold a cuda::Use of it");
    return *current_;
  }

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

    std::byte* take(std::size_t bytes) {
      check<Error>(bytes <= size - used, "recording", "the step copies more to the device than it did when it was rehearsed; it must do ",
                   "the same each time");
      std::byte* const at = memory.get() + used;
      used += round_up_256(bytes);
      return at;
    }
  };
  static constexpr std::size_t round_up_256(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

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
  Recording(Machine& machine, const Step& step) : machine_(machine.shared_from_this()), pool_(std::make_shared<Pool>(machine.heap_)) {
    machine.scratch();      // outlives this
    machine.pool_->trim();  // what was kept for reuse may be needed by the step
    std::swap(machine.pool_, pool_);
    const std::size_t before = machine.uploaded_;
    try {
      step();
      staging_.size = machine.uploaded_ - before;
      staging_.memory = machine.host_memory(staging_.size);
      machine.staging_ = &staging_;
      machine.begin_recording();
      try {
        step();
      } catch (...) {
        abandon(machine);
        throw;
      }
      work_ = machine.end_recording();
    } catch (...) {
      finish();
      throw;
    }
    finish();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  void run() {
    if (!staging_.sources.empty()) machine_->synchronize();  // the run before this one may still read them
    for (const auto& source : staging_.sources) std::memcpy(source.to, source.from, source.bytes);
    work_->run();
  }

 private:
  /// Ends a recording that failed; what CUDA says of it must not hide why it failed.
  static void abandon(Machine& machine) {
    try {
      machine.end_recording();
    } catch (const Error&) {
    }
  }
  void finish() {
    machine_->staging_ = nullptr;
    std::swap(machine_->pool_, pool_);
  }

  std::shared_ptr<Machine> machine_;
  std::shared_ptr<Pool> pool_;  // the step's own
  Machine::Staging staging_;
  std::unique_ptr<RecordedWork> work_;
};

/// What the sequences of cuda/linear.hpp launch with.
class Launch {
 public:
  explicit Launch(Machine& machine) : machine_(&machine) {}
  DeviceTraits traits() const { return machine_->traits(); }
  int multiprocessors() const { return traits().multiprocessors; }
  SliceBuffer slice() const { return machine_->slice(); }
  template <class Dense>
  void multiply(const Dense& product) {
    machine_->multiply(product);
  }
  template <class Kernel>
  void operator()(const Kernel& kernel) {
    machine_->launch(kernel);
  }

 private:
  Machine* machine_;
};

/// The GPU of that number, counted as cuda::devices() does. Defined by lowrank/cuda/gpu.hpp, which one unit of the program includes and
/// nvcc compiles. Throws Error where there is none.
std::shared_ptr<Machine> open_gpu(int index = 0);

}  // namespace lowrank::inline LOWRANK_ABI::cuda
