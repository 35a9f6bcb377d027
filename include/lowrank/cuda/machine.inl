#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

namespace detail {
constexpr std::size_t round_up_256(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
}  // namespace detail

LOWRANK_INLINE Memory Pool::reserve_exactly(std::size_t bytes) { return give((std::max<std::size_t>(1, bytes) + 511) / 512 * 512); }

LOWRANK_INLINE void Pool::trim() {
  for (auto& [size, pieces] : free_)
    for (std::byte* piece : pieces) heap_->release(piece);
  free_.clear();
}

LOWRANK_INLINE std::size_t Pool::size_class(std::size_t bytes) {
  const std::size_t step = std::max<std::size_t>(512, std::bit_floor(std::max<std::size_t>(1, bytes)) / 8);
  return (std::max<std::size_t>(1, bytes) + step - 1) / step * step;
}

LOWRANK_INLINE Memory Pool::give(std::size_t size) {
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

LOWRANK_INLINE std::byte* Pool::take(std::size_t size) {
  const auto found = free_.find(size);
  if (found == free_.end() || found->second.empty()) return nullptr;
  std::byte* const piece = found->second.back();
  found->second.pop_back();
  return piece;
}

LOWRANK_INLINE Machine::Machine(std::shared_ptr<Heap> heap) : heap_(std::move(heap)), pool_(std::make_shared<Pool>(heap_)) {}

LOWRANK_INLINE void Machine::multiply(const DenseProduct&) { fail<Error>("multiply", "this machine has no dense product"); }
LOWRANK_INLINE void Machine::multiply(const DenseOuter&) { fail<Error>("multiply", "this machine has no dense product"); }

LOWRANK_INLINE void Machine::upload(const void* from, std::byte* to, std::size_t bytes, bool read_anew) {
  if (bytes == 0) return;
  uploaded_ += detail::round_up_256(bytes);
  if (staging_ == nullptr) return copy_in(from, to, bytes);
  std::byte* const at = staging_->take(bytes);
  std::memcpy(at, from, bytes);
  if (read_anew) staging_->sources.push_back({from, at, bytes});
  copy_in(at, to, bytes);
}

LOWRANK_INLINE Memory Machine::uploaded(const void* from, std::size_t bytes, bool read_anew) {
  Memory memory = reserve(bytes);
  upload(from, memory.get(), bytes, read_anew);
  return memory;
}

LOWRANK_INLINE Scratch Machine::scratch() {
  constexpr Index numbers = Index{1} << 24;
  if (!scratch_) scratch_ = reserve(static_cast<std::size_t>(numbers) * sizeof(float));
  return {reinterpret_cast<float*>(scratch_.get()), numbers};
}

LOWRANK_INLINE Machine& Machine::current() {
  check<Error>(current_ != nullptr, "cuda", "no GPU is in use; open one (cuda::open_gpu) and hold a cuda::Use of it");
  return *current_;
}

LOWRANK_INLINE std::byte* Machine::Staging::take(std::size_t bytes) {
  check<Error>(bytes <= size - used, "recording", "the step copies more to the device than it did when it was rehearsed; it must do ",
               "the same each time");
  std::byte* const at = memory.get() + used;
  used += detail::round_up_256(bytes);
  return at;
}

LOWRANK_INLINE Recording::Recording(Machine& machine) : machine_(machine.shared_from_this()), pool_(std::make_shared<Pool>(machine.heap_)) {
  machine.scratch();      // outlives this
  machine.pool_->trim();  // what was kept for reuse may be needed by the step
  std::swap(machine.pool_, pool_);
}

LOWRANK_INLINE void Recording::begin(std::size_t staged_bytes) {
  staging_.size = staged_bytes;
  staging_.memory = machine_->host_memory(staged_bytes);
  machine_->begin_recording();
  machine_->staging_ = &staging_;
}

LOWRANK_INLINE void Recording::end() {
  machine_->staging_ = nullptr;
  work_ = machine_->end_recording();
  std::swap(machine_->pool_, pool_);
}

LOWRANK_INLINE void Recording::abandon() {
  if (std::exchange(machine_->staging_, nullptr) != nullptr) {
    try {
      machine_->end_recording();
    } catch (const Error&) {
    }
  }
  std::swap(machine_->pool_, pool_);
}

LOWRANK_INLINE void Recording::run() {
  if (!staging_.sources.empty()) machine_->synchronize();  // the run before this one may still read them
  for (const auto& source : staging_.sources) std::memcpy(source.to, source.from, source.bytes);
  work_->run();
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
