#include <doctest/doctest.h>

#include <algorithm>

#include <04_tape.hpp>

#include <exercises/difference.hpp>

TEST_CASE("exercise 4a: normalize backward") {
  Eigen::VectorXd x(4), g(4);
  x << 0.5, -2.0, 1.5, 0.25;
  g << 1.0, 0.5, -0.75, 2.0;
  const Eigen::VectorXd expected = exercises::difference(x, [&] { return x.normalized().dot(g); });
  CHECK((normalize_backward(x, g) - expected).norm() < 1e-8);
}

TEST_CASE("exercise 4b: how often to set a checkpoint") {
  for (const long layers : {4, 16, 36, 144, 400}) {
    const auto held = [&](long k) { return (layers + k - 1) / k + k; };
    long least = layers + 1;
    for (long k = 1; k <= layers; ++k) least = std::min(least, held(k));
    const long k = best_stretch(layers);
    REQUIRE(k >= 1);
    CHECK(held(k) == least);
  }
}
