#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include <03_backprop.hpp>

#include <exercises/difference.hpp>

TEST_CASE("exercise 3a: softmax backward") {
  Eigen::VectorXd z(5), g(5);
  z << 0.3, -1.2, 2.0, 0.1, 0.9;
  g << 1.0, -0.5, 0.25, 2.0, -1.5;
  const auto softmax = [&] {
    const Eigen::VectorXd e = z.array().exp();
    return Eigen::VectorXd(e / e.sum());
  };
  const Eigen::VectorXd expected = exercises::difference(z, [&] { return softmax().dot(g); });
  CHECK((softmax_backward(softmax(), g) - expected).norm() < 1e-8);
}

TEST_CASE("exercise 3b: the best step of a second difference") {
  const double predicted = best_step_of_second_difference();
  REQUIRE(predicted > 0);
  const auto worst = [](double h) {  // over several points, as the error at one of them is luck
    double error = 0;
    for (double x = 0.3; x < 2.8; x += 0.1)
      error = std::max(error, std::abs((std::sin(x + h) - 2 * std::sin(x) + std::sin(x - h)) / (h * h) + std::sin(x)));
    return error;
  };
  double least = 1;
  for (double h = 1e-8; h < 1; h *= 1.1) least = std::min(least, worst(h));
  CHECK(worst(predicted) < 10 * least);
}
