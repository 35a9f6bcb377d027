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
  const BFloat16 *a, *b;  // [16, 16] each, row-major
  bool a_transposed, b_transposed;
  float* c;

  template <class Simt>
  void operator()(Simt& t) const {
    std::uint32_t fa[4], fb[2][2];
    if (a_transposed)
      cuda::load_a_transposed(t, fa, a, 16);
    else
      cuda::load_a(t, fa, a, 16);
    if (b_transposed)
      cuda::load_b_transposed(t, fb, b, 16);
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

/// C [64, N] += A [64, 16] B [16, N] by one warpgroup, factors stored by all threads; what is left out on demand must show.
enum class Fault { none, no_async_fence, no_barrier, no_wgmma_fence, refilled_early, read_early, never_waited, beside };
template <int N, bool Transposed>
struct OneWgmma {
  static constexpr bool needs_wgmma = true;
  static constexpr int most_threads = 128, a_words = 64 * 8;
  const BFloat16 *a, *b;  // [64, 16] and [N, 16], row-major
  Fault fault;
  float* c;  // [64, N]

  cuda::LaunchShape shape() const { return {.threads = 128, .shared_bytes = (a_words + N * 8) * 16 + cuda::swizzle_slack}; }

  template <class Simt>
  void operator()(Simt& t) const {
    auto* const shared = &cuda::swizzled_shared_as<cuda::Word4>(t);
    auto* const numbers = reinterpret_cast<BFloat16*>(shared);
    const auto place = [](int row, int column) { return cuda::swizzled_word(row, column / 8, 64) * 8 + column % 8; };
    for (int i = t.thread(); i < 64 * 16; i += 128) numbers[Transposed ? place(i % 16, i / 16) : place(i / 16, i % 16)] = a[i];
    for (int i = t.thread(); i < N * 16; i += 128) numbers[a_words * 8 + place(i / 16, i % 16)] = b[i];
    if (fault != Fault::no_async_fence) t.fence_async();
    if (fault != Fault::no_barrier) t.sync();
    const std::uint32_t at = t.shared_address(shared) + (fault == Fault::beside ? 1024 * (N / 8) : 0);
    float sums[N / 2] = {};
    if (fault != Fault::no_wgmma_fence) t.wgmma_fence();
    t.template wgmma<Transposed>(sums, cuda::matrix_descriptor(at, 8192, 1024), cuda::matrix_descriptor(at + 16 * a_words, 8192, 1024));
    t.wgmma_commit();
    if (fault == Fault::refilled_early) numbers[8 * (t.thread() + 1)] = BFloat16(7.0f);
    if (fault != Fault::never_waited && fault != Fault::read_early) t.wgmma_wait(sums);
    for (int i = 0; i < N / 2; ++i) c[cuda::wgmma_row(t.thread(), i) * N + cuda::wgmma_column(t.thread(), i)] = sums[i];
    if (fault == Fault::read_early) t.wgmma_wait(sums);
  }
};

template <int N, bool Transposed>
std::vector<float> one_wgmma(const simt_test::Schedule& schedule, Fault fault, const BFloat16* a, const BFloat16* b) {
  std::vector<float> c(64 * N);
  Machine machine(schedule);
  launch(machine, OneWgmma<N, Transposed>{a, b, fault, c.data()});
  return c;
}

template <int N, bool Transposed>
void check_wgmma() {
  std::vector<BFloat16> a(64 * 16), b(N * 16);
  const auto x = random_numbers(64 * 16, 1), y = random_numbers(N * 16, 2);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = BFloat16(x[i]);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = BFloat16(y[i]);
  for (const auto& schedule : simt_test::schedules) {
    const auto run = [&](Fault fault) { return one_wgmma<N, Transposed>(schedule, fault, a.data(), b.data()); };
    const auto c = run(Fault::none);
    for (std::size_t i = 0; i < 64; ++i)
      for (std::size_t j = 0; j < N; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k < 16; ++k) sum += static_cast<double>(a[16 * i + k]) * static_cast<double>(b[16 * j + k]);
        CHECK(c[N * i + j] == doctest::Approx(sum).epsilon(1e-5));
      }
    for (const Fault fault : {Fault::no_async_fence, Fault::no_wgmma_fence, Fault::never_waited, Fault::beside, Fault::refilled_early})
      CHECK_THROWS_AS(run(fault), std::logic_error);
    CHECK(run(Fault::no_barrier) != c);  // what was not yet stored is NaN
    CHECK((run(Fault::read_early) != c) == schedule.late);
  }
}

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
    CHECK((out[0] == 1) == !schedule.late);
  }
}

TEST_CASE("fragments of a tensor core's product, loaded as they lie and transposed") {
  alignas(16) BFloat16 a[256], b[256], a_transposed[256], b_transposed[256];
  const auto x = random_numbers(256, 1), y = random_numbers(256, 2);
  for (std::size_t i = 0; i < 256; ++i) {
    a[i] = a_transposed[i % 16 * 16 + i / 16] = BFloat16(x[i]);  // (row, depth)
    b[i] = b_transposed[i % 16 * 16 + i / 16] = BFloat16(y[i]);  // (column, depth)
  }
  for (const bool turn_a : {false, true})
    for (const bool turn_b : {false, true}) {
      const auto c = on_every_schedule([&](Machine& machine) {
        std::vector<float> out(256);
        machine.launch({.threads = 32}, OneMma{turn_a ? a_transposed : a, turn_b ? b_transposed : b, turn_a, turn_b, out.data()});
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

TEST_CASE("a product of a warpgroup, found through its descriptors; every fault in its order shows") {
  check_wgmma<64, false>();
  check_wgmma<128, true>();
}

TEST_CASE("swizzled tiles: every word has a place of its own, and eight rows at one word meet no bank twice") {
  std::vector<int> places(64 * 16);
  for (int row = 0; row < 64; ++row)
    for (int part = 0; part < 16; ++part) ++places[static_cast<std::size_t>(cuda::swizzled_word(row, part, 64))];
  for (const int count : places) CHECK(count == 1);
  for (int part = 0; part < 8; ++part) {
    int banks = 0;
    for (int row = 0; row < 8; ++row) banks |= 1 << cuda::swizzled_word(row, part, 64) % 8;
    CHECK(banks == 255);
  }
  CHECK(cuda::matrix_descriptor(0x2420, 16, 1024) == (0x242ull | 1ull << 16 | 64ull << 32 | 1ull << 62));
}
