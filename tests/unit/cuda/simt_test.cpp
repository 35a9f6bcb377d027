#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;
using simt_test::Machine;

namespace {

/// Each warp sums in turn, then a block sum; with a barrier left out on demand.
struct Neighbour {
  static constexpr int most_threads = 64;
  bool has_barrier;
  float* out;

  template <class Simt>
  void operator()(Simt& t) const {
    float* const shared = &cuda::shared_as<float>(t);
    shared[t.thread()] = static_cast<float>(t.thread() + 1);
    if (has_barrier) t.sync();
    out[t.thread()] = shared[(t.thread() + 1) % t.threads()] + shared[(t.thread() + 63) % t.threads()];
  }
};

struct BlockSum {
  static constexpr int most_threads = 96;
  float* out;

  template <class Simt>
  void operator()(Simt& t) const {
    float* const scratch = &cuda::shared_as<float>(t);
    const float first = cuda::block_sum(t, static_cast<float>(t.thread()), scratch);
    const float largest = cuda::block_max(t, static_cast<float>(t.thread() % 50), scratch);
    out[t.block_x() * t.threads() + t.thread()] = first + 10000 * largest;
  }
};

struct MissedBarrier {
  static constexpr int most_threads = 64;
  template <class Simt>
  void operator()(Simt& t) const {
    if (t.thread() != 5) t.sync();
  }
};
struct Divergent {
  static constexpr int most_threads = 32;
  template <class Simt>
  void operator()(Simt& t) const {
    if (t.lane() < 16)
      t.sync_warp();
    else
      t.shuffle_xor(1.0f, 1);
  }
};

/// C = A B for one warp, from rows of shared memory, by each of the four ways to load a factor.
struct OneMma {
  static constexpr int most_threads = 32;
  const bfloat16 *a, *b;  // [16, 16] each, row-major
  bool a_turned, b_turned;
  float* c;

  template <class Simt>
  void operator()(Simt& t) const {
    std::uint32_t fa[4], fb[2][2];
    if (a_turned)
      cuda::load_a_turned(t, fa, a, 16);
    else
      cuda::load_a(t, fa, a, 16);
    if (b_turned)
      cuda::load_b_turned(t, fb, b, 16);
    else
      cuda::load_b(t, fb, b, 16);
    for (int half = 0; half < 2; ++half) {
      float sums[4] = {};
      t.mma(sums, fa, fb[half]);
      for (int e = 0; e < 4; ++e) c[(t.lane() / 4 + e / 2 * 8) * 16 + half * 8 + t.lane() % 4 * 2 + e % 2] = sums[e];
    }
  }
};

/// Copies a number to the next thread through shared memory, asynchronously.
struct AsyncNeighbour {
  static constexpr int most_threads = 32;
  const cuda::Word4* from;
  bool waits;
  std::uint32_t* out;

  template <class Simt>
  void operator()(Simt& t) const {
    auto* const shared = &cuda::shared_as<cuda::Word4>(t);
    t.copy_async(shared + t.thread(), from + t.thread(), 8);
    t.commit();
    if (waits) t.wait(cuda::Pending<0>{});
    t.sync();
    out[t.thread()] = shared[(t.thread() + 1) % 32].word[0] + shared[(t.thread() + 1) % 32].word[2];
  }
};

}  // namespace

TEST_CASE("the model of a block runs barriers and exchanges in every order") {
  std::vector<float> expected(64);
  for (int i = 0; i < 64; ++i) expected[static_cast<std::size_t>(i)] = static_cast<float>((i + 1) % 64 + 1 + (i + 63) % 64 + 1);
  for (const auto& schedule : simt_test::schedules) {
    Machine machine(schedule);
    std::vector<float> out(64);
    machine.launch({.threads = 64, .shared_bytes = 256}, Neighbour{true, out.data()});
    CHECK(out == expected);
    machine.launch({.threads = 64, .shared_bytes = 256}, Neighbour{false, out.data()});
    CHECK(out != expected);  // the missing barrier shows: what was not yet written is NaN
  }
  const auto sums = on_every_schedule([](Machine& machine) {
    std::vector<float> out(2 * 96);
    machine.launch({.x = 2, .threads = 96, .shared_bytes = 16}, BlockSum{out.data()});
    return out;
  });
  for (const float sum : sums) CHECK(sum == 96 * 95 / 2 + 490000);
}

TEST_CASE("the model refuses barriers and exchanges that some threads miss") {
  CHECK_THROWS_AS(Machine().launch({.threads = 64}, MissedBarrier{}), std::logic_error);
  CHECK_THROWS_AS(Machine().launch({.threads = 32}, Divergent{}), std::logic_error);
  CHECK_THROWS_AS(Machine().launch({.threads = 33}, MissedBarrier{}), std::logic_error);
}

TEST_CASE("an asynchronous copy lands at its wait at the latest, and not before it in the worst case") {
  std::vector<cuda::Word4> from(32);
  for (std::uint32_t i = 0; i < 32; ++i) from[i] = {{i, 1, 1000, 1}};
  for (const auto& schedule : simt_test::schedules) {
    Machine machine(schedule);
    std::vector<std::uint32_t> out(32);
    machine.launch({.threads = 32, .shared_bytes = 512}, AsyncNeighbour{from.data(), true, out.data()});
    for (std::uint32_t i = 0; i < 32; ++i) CHECK(out[i] == (i + 1) % 32);  // the second half of 16 bytes is zero
    machine.launch({.threads = 32, .shared_bytes = 512}, AsyncNeighbour{from.data(), false, out.data()});
    CHECK((out[0] == 1) == !schedule.late_copies);
  }
}

TEST_CASE("fragments of a tensor core's product, loaded as they lie and turned") {
  alignas(16) bfloat16 a[256], b[256], a_turned[256], b_turned[256];
  const auto x = random_numbers(256, 1), y = random_numbers(256, 2);
  for (std::size_t i = 0; i < 256; ++i) {
    a[i] = a_turned[i % 16 * 16 + i / 16] = bfloat16(x[i]);  // (row, depth)
    b[i] = b_turned[i % 16 * 16 + i / 16] = bfloat16(y[i]);  // (column, depth)
  }
  for (const bool turn_a : {false, true})
    for (const bool turn_b : {false, true}) {
      const auto c = on_every_schedule([&](Machine& machine) {
        std::vector<float> out(256);
        machine.launch({.threads = 32}, OneMma{turn_a ? a_turned : a, turn_b ? b_turned : b, turn_a, turn_b, out.data()});
        return out;
      });
      for (std::size_t i = 0; i < 16; ++i)
        for (std::size_t j = 0; j < 16; ++j) {
          double sum = 0;
          for (std::size_t k = 0; k < 16; ++k) sum += static_cast<double>(a[16 * i + k]) * static_cast<double>(b[16 * j + k]);
          CHECK(c[16 * i + j] == doctest::Approx(sum).epsilon(1e-5));
        }
    }
}
