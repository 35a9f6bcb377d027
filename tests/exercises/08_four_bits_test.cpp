#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include <08_four_bits.hpp>

#include <lowrank/core/random.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_0.hpp>

using namespace lowrank;

TEST_CASE("exercise 8a: bits a weight") {
  CHECK(bits_per_weight(64, 32, 0) == doctest::Approx(Nf4<64>::bits_per_weight).epsilon(1e-12));
  CHECK(bits_per_weight(128, 8, 256) == doctest::Approx(Nf4<128, DoubleQuant>::bits_per_weight).epsilon(1e-12));
  CHECK(bits_per_weight(32, 16, 0) == doctest::Approx(Q4_0::bits_per_weight).epsilon(1e-12));
}

TEST_CASE("exercise 8b: the error of even values on even weights") {
  for (const int block : {32, 256}) {
    Random random(1);
    double sum = 0;
    const int blocks = 2000;
    std::vector<double> w(static_cast<std::size_t>(block));
    for (int i = 0; i < blocks; ++i) {
      double largest = 0;
      for (double& x : w) x = static_cast<double>(random.uniform(-1, 1)), largest = std::max(largest, std::abs(x));
      const double step = 2 * largest / 15;
      for (const double x : w) {
        const double rest = x - (std::round((x + largest) / step) * step - largest);
        sum += rest * rest;
      }
    }
    CHECK(even_rmse(block) == doctest::Approx(std::sqrt(sum / blocks / block)).epsilon(0.03));
  }
}
