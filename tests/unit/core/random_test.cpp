#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include <lowrank/core/random.hpp>

using namespace lowrank;

TEST_CASE("philox: the known answers of Random123") {
  using Words = std::array<std::uint32_t, 4>;
  static_assert(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  static_assert(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  static_assert(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
                Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream is a function of seed, stream and position") {
  Random random(42, 3);
  for (std::uint64_t i = 0; i < 100; ++i) CHECK(random.bits() == Random(42, 3).bits_at(i));
  random.seek(17);
  CHECK(random.uniform() == Random(42, 3).uniform_at(17));
  CHECK(random.position() == 18);
  CHECK(Random(42, 3).bits_at(std::uint64_t{1} << 40) != Random(42, 3).bits_at(0));
}

TEST_CASE("seeds and streams differ in every bit of their words") {
  std::set<std::uint32_t> first;
  for (int bit = 0; bit < 64; ++bit) {
    first.insert(Random(std::uint64_t{1} << bit, 0).bits());
    first.insert(Random(0, std::uint64_t{1} << bit).bits());
  }
  CHECK(first.size() == 128);
}

TEST_CASE("roles have numbers of their own under one seed and one stream") {
  std::set<std::uint32_t> first;
  int roles = 0;
  for (auto role = std::uint64_t{0}; role <= static_cast<std::uint64_t>(Role::sketch); ++role, ++roles)
    first.insert(Random(0, 0, static_cast<Role>(role)).bits());
  CHECK(first.size() == static_cast<std::size_t>(roles));
  CHECK(Random(7, 3, Role::lora_a).bits() == Random(7, 3).bits());
}

TEST_CASE("uniform, below and normal keep their ranges and moments") {
  Random random(1);
  constexpr int count = 100000;
  double sum = 0, squares = 0, uniform_sum = 0;
  bool inside = true;
  for (int i = 0; i < count; ++i) {
    const float u = random.uniform(), v = random.uniform(-2, 3);
    const Index n = random.below(7);
    inside = inside && u >= 0 && u < 1 && v >= -2 && v < 3 && n >= 0 && n < 7;
    uniform_sum += u;
    const double z = random.normal();
    sum += z;
    squares += z * z;
  }
  CHECK(inside);
  // Within five standard deviations of the mean of that many draws.
  CHECK(std::abs(uniform_sum / count - 0.5) < 5 * std::sqrt(1.0 / 12 / count));
  CHECK(std::abs(sum / count) < 5 / std::sqrt(double{count}));
  CHECK(std::abs(squares / count - 1) < 5 * std::sqrt(2.0 / count));
}
