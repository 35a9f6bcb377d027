#pragma once

/// A model of a GPU's block on the CPU: runs the kernels of lowrank/cuda/ from their own source, so that tests need no GPU.
///
/// Each thread of a block is a fiber; it runs until it meets a barrier, an exchange inside its warp or its end, then the next one runs.
/// What is wrong in a kernel shows because everything that a GPU leaves open is chosen badly on purpose:
/// - warps take turns in an order of the caller's choice, each alone up to its block's next barrier, and so do the lanes of a warp: a
///   missing barrier shows in one order or the other;
/// - an asynchronous copy lands at the last moment (its wait) or at once, so a missing wait and a buffer refilled too early both show;
/// - so does a product of a warpgroup (wgmma): it reads its factors and adds to its sums at its wait or at once, each warp's share for
///   itself; what it reads must have been fenced by the thread that wrote it, or the run ends with an exception;
/// - shared memory holds NaN when a block begins and lies in a heap block of its exact size, which the address sanitizer watches;
/// - a barrier that some threads never reach, or lanes that meet different instructions, end the run with an exception.
/// What it cannot show: races that no such order brings out, and how fast anything is.

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include <lowrank/cuda/kernels/wgmma.hpp>

#include <support/fiber.hpp>
#include <support/wgmma.hpp>

namespace simt_test {

using lowrank::BFloat16;
using lowrank::cuda::LaunchShape;
using lowrank::cuda::Pending;
using lowrank::cuda::warp_size;
using lowrank::cuda::Word4;

/// What the model chooses where a GPU is free.
struct Schedule {
  bool reversed = false;  ///< the last thread and the last block run first
  bool late = true;       ///< asynchronous copies and products happen at their wait, else at once
};
inline constexpr Schedule schedules[] = {{false, true}, {true, false}, {true, true}};

class Thread;

/// Runs the blocks of a grid one after the other.
class Machine {
 public:
  explicit Machine(Schedule schedule = {}) : schedule_(schedule) {}
  Schedule schedule() const { return schedule_; }

  template <class Kernel>
  void launch(const LaunchShape& shape, const Kernel& kernel);

 private:
  friend class Thread;
  using Apply = void (*)(void* const* lanes);
  enum class State { ready, waiting, finished };

  struct Warp {
    int arrived = 0;
    Apply apply = nullptr;
    void* lanes[warp_size] = {};
  };
  struct Copy {
    void* to;
    const void* from;
    int bytes;
  };
  static void entry();
  void run_block();
  bool run_warp(int warp);
  void suspend() {
    state_[static_cast<std::size_t>(current_)] = State::waiting;
    fibers_[static_cast<std::size_t>(current_)]->leave(main_);
  }
  void sync() {
    products_.note_stores(current_);
    if (++arrived_ < shape_.threads) return suspend();
    arrived_ = 0;
    for (State& state : state_) state = State::ready;
  }
  /// All lanes of a warp meet; the last one does the work for all.
  void meet(Apply apply, void* lane) {
    products_.note_stores(current_);
    Warp& warp = warps_[static_cast<std::size_t>(current_ / warp_size)];
    if (warp.arrived > 0 && warp.apply != apply) throw_later("lanes of a warp meet different instructions");
    warp.apply = apply;
    warp.lanes[current_ % warp_size] = lane;
    if (++warp.arrived < warp_size) return suspend();
    apply(warp.lanes);
    warp.arrived = 0;
    for (int lane_of_warp = 0; lane_of_warp < warp_size; ++lane_of_warp)
      state_[static_cast<std::size_t>(current_ / warp_size * warp_size + lane_of_warp)] = State::ready;
  }
  void throw_later(const char* what) {
    if (failure_ == nullptr) failure_ = what;
  }
  static void land(const Copy& copy) {
    std::memset(copy.to, 0, 16);
    if (copy.bytes > 0) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
  }

  std::byte* bytes() const { return reinterpret_cast<std::byte*>(shared_.get()); }
  int warp() const { return current_ / warp_size; }

  Schedule schedule_;
  LaunchShape shape_;
  int block_[3] = {}, current_ = 0, arrived_ = 0;
  const char* failure_ = nullptr;
  std::jmp_buf main_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<State> state_;
  std::vector<Warp> warps_;
  std::unique_ptr<Word4[]> shared_;
  std::vector<std::vector<std::vector<Copy>>> copies_;  // of each thread, each group; the last group is still open
  bool uses_wgmma_ = false;
  AsyncProducts products_;
  const void* kernel_ = nullptr;
  void (*run_)(const void* kernel, Thread& thread) = nullptr;
};

inline Machine* running = nullptr;

/// The model's answer to DeviceThread.
class Thread {
 public:
  explicit Thread(Machine& machine) : m_(machine), index_(machine.current_) {}

  int thread() const { return index_; }
  int threads() const { return m_.shape_.threads; }
  int lane() const { return index_ % warp_size; }
  int warp() const { return index_ / warp_size; }
  int block_x() const { return m_.block_[0]; }
  int block_y() const { return m_.block_[1]; }
  int block_z() const { return m_.block_[2]; }
  std::byte* shared() const { return reinterpret_cast<std::byte*>(m_.shared_.get()); }

  void sync() const { m_.sync(); }
  void sync_warp() const {
    m_.meet([](void* const*) {}, nullptr);
  }
  template <class T>
  T shuffle_xor(T value, int mask) const {
    struct Lane {
      T value;
      int mask;
      T result;
    } lane{value, mask, value};
    m_.meet(
        [](void* const* lanes) {
          for (int i = 0; i < warp_size; ++i) {
            auto& to = *static_cast<Lane*>(lanes[i]);
            to.result = static_cast<Lane*>(lanes[i ^ to.mask])->value;
          }
        },
        &lane);
    return lane.result;
  }

  void mma(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) const {
    MmaLane lane{c, a, b};
    m_.meet(&Thread::multiply, &lane);
  }
  void load_matrices(std::uint32_t (&r)[4], const BFloat16* row) const {
    MatrixLane lane{row, {}};
    m_.meet(&Thread::load<false>, &lane);
    std::memcpy(r, lane.r, sizeof r);
  }
  void load_matrices_transposed(std::uint32_t (&r)[4], const BFloat16* row) const {
    MatrixLane lane{row, {}};
    m_.meet(&Thread::load<true>, &lane);
    std::memcpy(r, lane.r, sizeof r);
  }

  void copy_async(void* shared, const void* global, int bytes) const {
    if (reinterpret_cast<std::uintptr_t>(shared) % 16 != 0 || (bytes > 0 && reinterpret_cast<std::uintptr_t>(global) % 16 != 0))
      m_.throw_later("an asynchronous copy from or to an address that is no multiple of 16");
    const Machine::Copy copy{shared, global, bytes};
    if (!m_.schedule_.late) return Machine::land(copy);
    groups().back().push_back(copy);
  }
  void commit() const { groups().emplace_back(); }
  template <int Count>
  void wait(Pending<Count>) const {
    auto& all = groups();
    while (all.size() > Count + 1) {
      for (const auto& copy : all.front()) Machine::land(copy);
      all.erase(all.begin());
    }
  }
  Word4 stream(const Word4* global) const {
    if (reinterpret_cast<std::uintptr_t>(global) % 16 != 0) m_.throw_later("a load of 16 bytes from an address that is no multiple of 16");
    return *global;
  }

  std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) const {
    const std::uint64_t both = static_cast<std::uint64_t>(b) << 32 | a;
    std::uint32_t result = 0;
    for (int i = 0; i < 4; ++i) result |= static_cast<std::uint32_t>(both >> (8 * (selector >> (4 * i) & 7u)) & 0xffu) << (8 * i);
    return result;
  }
  void allow_next() const {}
  void wait_for_previous() const {}
  std::uint32_t shared_address(const void* shared) const { return m_.products_.address_of(shared); }
  void fence_async() const { m_.products_.fence_async(index_); }
  void wgmma_fence() const {
    m_.meet([](void* const*) { running->products_.fence(running->warp()); }, nullptr);
  }
  template <bool ATransposed, int Count>
  void wgmma(float (&sums)[Count], std::uint64_t a, std::uint64_t b) const {
    ProductLane lane{sums, 2 * Count, ATransposed, a, b};
    m_.meet(&Thread::queue, &lane);
  }
  void wgmma_commit() const {
    m_.meet([](void* const*) { running->products_.commit(running->warp()); }, nullptr);
  }
  template <int Count>
  void wgmma_wait(float (&)[Count]) const {
    m_.meet([](void* const*) { running->products_.wait(running->warp()); }, nullptr);
  }

 private:
  struct MmaLane {
    float (&c)[4];
    const std::uint32_t (&a)[4];
    const std::uint32_t (&b)[2];
  };
  struct MatrixLane {
    const BFloat16* row;
    std::uint32_t r[4];
  };

  struct ProductLane {
    float* sums;
    int columns;
    bool a_transposed;
    std::uint64_t a, b;
  };
  static void queue(void* const* lanes) {
    const auto& first = *static_cast<const ProductLane*>(lanes[0]);
    ProductShare share{{}, first.columns, first.a_transposed, first.a, first.b};
    for (std::size_t l = 0; l < warp_size; ++l) {
      const auto& lane = *static_cast<const ProductLane*>(lanes[l]);
      if (lane.columns != first.columns || lane.a != first.a || lane.b != first.b)
        running->throw_later("lanes of a warp name different factors of one product");
      share.sums[l] = lane.sums;
    }
    if (const char* const failure = running->products_.queue(running->warp(), share)) running->throw_later(failure);
  }

  std::vector<std::vector<Machine::Copy>>& groups() const { return m_.copies_[static_cast<std::size_t>(index_)]; }

  static float half_of(std::uint32_t pair, int which) {
    return which == 0 ? lowrank::cuda::low_bfloat16(pair) : lowrank::cuda::high_bfloat16(pair);
  }
  /// C += A B through whole matrices, filled and emptied as the PTX manual lays the fragments out.
  static void multiply(void* const* lanes) {
    float a[16][16], b[16][8];
    for (int l = 0; l < warp_size; ++l) {
      const auto& lane = *static_cast<const MmaLane*>(lanes[l]);
      const int g = l / 4, t = l % 4;
      for (int h = 0; h < 2; ++h) {
        for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][2 * t + h + i / 2 * 8] = half_of(lane.a[i], h);
        for (int i = 0; i < 2; ++i) b[2 * t + h + i * 8][g] = half_of(lane.b[i], h);
      }
    }
    for (int l = 0; l < warp_size; ++l) {
      const auto& lane = *static_cast<const MmaLane*>(lanes[l]);
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) lane.c[i] += a[row][k] * b[k][column];
      }
    }
  }
  template <bool Transposed>
  static void load(void* const* lanes) {
    for (int l = 0; l < warp_size; ++l) {
      auto& lane = *static_cast<MatrixLane*>(lanes[l]);
      const int g = l / 4, t = l % 4;
      for (int i = 0; i < 4; ++i) {
        const auto element = [&](int row, int column) -> std::uint32_t {
          return static_cast<const MatrixLane*>(lanes[8 * i + row])->row[column].bits;
        };
        const std::uint32_t low = Transposed ? element(2 * t, g) : element(g, 2 * t);
        const std::uint32_t high = Transposed ? element(2 * t + 1, g) : element(g, 2 * t + 1);
        lane.r[i] = low | high << 16;
      }
    }
  }

  Machine& m_;
  int index_;
};

inline void Machine::entry() {
  Machine& m = *running;
  m.fibers_[static_cast<std::size_t>(m.current_)]->entered();
  for (;;) {
    {
      Thread thread(m);
      m.run_(m.kernel_, thread);
      m.products_.note_stores(m.current_);
    }
    m.state_[static_cast<std::size_t>(m.current_)] = State::finished;
    m.fibers_[static_cast<std::size_t>(m.current_)]->leave(m.main_);
  }
}

inline void Machine::run_block() {
  const auto threads = static_cast<std::size_t>(shape_.threads);
  state_.assign(threads, State::ready);
  warps_.assign(threads / warp_size, Warp{});
  copies_.assign(threads, std::vector<std::vector<Copy>>(1));
  arrived_ = 0;
  const std::size_t words = (shape_.shared_bytes + 15) / 16;
  std::memset(static_cast<void*>(shared_.get()), 0xff, words * 16);
  products_.begin(bytes(), uses_wgmma_ ? words * 16 : 0, threads / warp_size, schedule_.late);
  const int warps = shape_.threads / warp_size;
  for (bool moved = true; moved;) {
    moved = false;
    for (int turn = 0; turn < warps; ++turn)
      while (run_warp(schedule_.reversed ? warps - 1 - turn : turn)) moved = true;
  }
  for (const State state : state_)
    if (state != State::finished) throw std::logic_error("a barrier, or an exchange of a warp, that some threads never reach");
  if (const char* const failure = products_.failure_at_end()) throw std::logic_error(failure);
}

/// Runs each lane that can to where it waits, so that a warp goes on alone to its block's next barrier; whether there was one.
inline bool Machine::run_warp(int warp) {
  bool moved = false;
  for (int turn = 0; turn < warp_size; ++turn) {
    current_ = warp * warp_size + (schedule_.reversed ? warp_size - 1 - turn : turn);
    if (state_[static_cast<std::size_t>(current_)] != State::ready) continue;
    moved = true;
    fibers_[static_cast<std::size_t>(current_)]->enter(main_);
    if (failure_ != nullptr) throw std::logic_error(failure_);
  }
  return moved;
}

template <class Kernel>
void Machine::launch(const LaunchShape& shape, const Kernel& kernel) {
  if (shape.threads % warp_size != 0 || shape.threads < 1 || shape.threads > Kernel::most_threads)
    throw std::logic_error("a block's threads must be whole warps, at most the kernel's most_threads");
  shape_ = shape;
  kernel_ = &kernel;
  run_ = [](const void* of, Thread& thread) { (*static_cast<const Kernel*>(of))(thread); };
  failure_ = nullptr;
  uses_wgmma_ = lowrank::cuda::UsesWgmma<Kernel>;
  shared_ = std::make_unique<Word4[]>((shape.shared_bytes + 15) / 16);
  while (fibers_.size() < static_cast<std::size_t>(shape.threads)) fibers_.push_back(std::make_unique<Fiber>(&Machine::entry));
  running = this;
  const unsigned blocks = shape.x * shape.y * shape.z;
  for (unsigned turn = 0; turn < blocks; ++turn) {
    const unsigned block = schedule_.reversed ? blocks - 1 - turn : turn;
    block_[0] = static_cast<int>(block % shape.x);
    block_[1] = static_cast<int>(block / shape.x % shape.y);
    block_[2] = static_cast<int>(block / shape.x / shape.y);
    run_block();
  }
  running = nullptr;
}

}  // namespace simt_test
