#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

#include <lowrank/core/parallel.hpp>

using namespace lowrank;

namespace {

/// Sets the number of threads for one scope.
struct Threads {
  int before = thread_count();
  explicit Threads(int count) { set_thread_count(count); }
  ~Threads() { set_thread_count(before); }
};

}  // namespace

TEST_CASE("parallel_for visits each index once, for any number of threads") {
  for (int threads : {1, 2, 7}) {
    const Threads scope(threads);
    for (Index count : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      parallel_for(count, [&](Index i) { ++visits[static_cast<std::size_t>(i)]; });
      int wrong = 0;
      for (const auto& visit : visits) wrong += visit != 1;
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("parallel_for rethrows an exception of its body and leaves the rest undone") {
  for (int threads : {1, 4}) {
    const Threads scope(threads);
    std::atomic<int> done{0};
    CHECK_THROWS_WITH_AS(parallel_for(1000000,
                                      [&](Index i) {
                                        if (i == 3) throw std::runtime_error("piece 3");
                                        ++done;
                                      }),
                         "piece 3", std::runtime_error);
    CHECK(done < 1000000);
    int again = 0;
    parallel_for(1, [&](Index) { ++again; });
    CHECK(again == 1);
  }
}

TEST_CASE("a loop inside a loop runs serially") {
  const Threads scope(4);
  std::atomic<int> sum{0};
  parallel_for(8, [&](Index) { parallel_for(8, [&](Index) { ++sum; }); });
  CHECK(sum == 64);
}

TEST_CASE("parallel_ranges covers the range in pieces of at most the grain") {
  const Threads scope(3);
  for (Index count : {0, 1, 9, 10, 11}) {
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
    std::atomic<int> too_long{0};
    parallel_ranges(count, 5, [&](Index begin, Index end) {
      too_long += end - begin > 5 || begin >= end;
      for (Index i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
    });
    int wrong = 0;
    for (const auto& visit : visits) wrong += visit != 1;
    CHECK(wrong == 0);
    CHECK(too_long == 0);
  }
}

TEST_CASE("a count of threads below one means one") {
  const Threads scope(0);
  CHECK(thread_count() == 1);
}
