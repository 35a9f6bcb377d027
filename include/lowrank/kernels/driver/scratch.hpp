#pragma once

#include <cstddef>
#include <new>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Memory that a thread keeps from product to product: it grows, and is freed when the thread ends. Contents do not survive `get`.
template <class Tag>
class Scratch {
 public:
  template <class T>
  static T* get(Index count) {
    static thread_local Scratch scratch;
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (bytes > scratch.size_) {
      scratch.release();
      scratch.data_ = ::operator new (bytes, std::align_val_t{64});
      scratch.size_ = bytes;
    }
    return static_cast<T*>(scratch.data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

 private:
  Scratch() = default;
  ~Scratch() { release(); }
  void release() {
    ::operator delete (data_, std::align_val_t{64});
    data_ = nullptr;
    size_ = 0;
  }

  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels
