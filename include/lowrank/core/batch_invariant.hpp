#pragma once

#include <atomic>

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// While one lives, a token's numbers do not depend on its neighbours: the same bits alone, in a batch, or with any number of tokens at
/// once.
///
///   const BatchInvariant guard;
/// Products and attention then take one path for any number of tokens, products the packed one, attention the streaming one, on every
/// thread of the process. Its price is paid where few tokens are computed at a time: README says what it is.
class BatchInvariant {
 public:
  BatchInvariant() { count().fetch_add(1, std::memory_order_relaxed); }
  ~BatchInvariant() { count().fetch_sub(1, std::memory_order_relaxed); }
  BatchInvariant(const BatchInvariant&) = delete;
  BatchInvariant& operator=(const BatchInvariant&) = delete;

  static bool is_on() { return count().load(std::memory_order_relaxed) > 0; }

 private:
  static std::atomic<int>& count() {
    static std::atomic<int> guards{0};
    return guards;
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
