#include <doctest/doctest.h>

#include <07_merge.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/core/random.hpp>

TEST_CASE("exercise 7a: merging for one batch") {
  for (const long m : {64, 768, 4096}) {
    for (const long n : {64, 1024}) {
      for (const long r : {1, 16, 64}) {
        for (long b = 1; b < 4096; b *= 2) CHECK(merging_is_cheaper(m, n, r, b) == (2 * r * m * n < b * 2 * r * (m + n)));
      }
    }
  }
}

TEST_CASE("exercise 7b: what bfloat16 loses") {
  lowrank::Random random(1);
  double error = 0, whole = 0;
  for (int i = 0; i < 100'000; ++i) {
    const float w = random.normal();
    const double rest = static_cast<double>(static_cast<float>(lowrank::BFloat16(w))) - static_cast<double>(w);
    error += rest * rest;
    whole += static_cast<double>(w) * static_cast<double>(w);
  }
  CHECK(bfloat16_rounding_error() == doctest::Approx(std::sqrt(error / whole)).epsilon(0.1));
}
