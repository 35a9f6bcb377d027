#include <doctest/doctest.h>

#include <06_scale.hpp>

#include <lowrank/update/init.hpp>
#include <lowrank/update/lora_scale.hpp>

TEST_CASE("exercise 6a: a scale for a gaussian beginning") {
  // The change of an output in the first step, over everything that does not depend on r: s² ‖A x‖², the mean over many A.
  const auto change = [](long r) {
    double sum = 0;
    for (std::uint64_t seed = 0; seed < 400; ++seed) {
      Eigen::MatrixXd a(r, 8);
      lowrank::fill_normal(a, 1.0 / static_cast<double>(r), lowrank::Random(seed, static_cast<std::uint64_t>(r)));
      sum += a.rowwise().sum().squaredNorm() / 400;  // x = (1, …, 1)
    }
    const double s = stable_scale_for_gaussian(4, r);
    return s * s * sum;
  };
  CHECK(stable_scale_for_gaussian(4, 1) == doctest::Approx(4));
  CHECK(change(4) == doctest::Approx(change(16)).epsilon(0.2));
  CHECK(change(4) == doctest::Approx(change(64)).epsilon(0.2));
}

TEST_CASE("exercise 6b: the same layer as rsLoRA") {
  for (const long r : {1, 4, 9, 64})
    CHECK(lowrank::lora_scale(r, rslora_alpha(16, r), true) == doctest::Approx(lowrank::lora_scale(r, 16, false)));
}
