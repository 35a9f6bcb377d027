#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/optim/sgd.hpp>

using namespace lowrank;

TEST_CASE("Sgd with momentum and decay takes the steps of torch.optim.SGD") {
  // Learning rate 0.1, momentum 0.9, weight decay 0.01, float64.
  constexpr double gradients[3][3] = {{0.3, -0.2, 1.0}, {0.1, 0.4, -0.5}, {-0.7, 0.0, 0.25}};
  constexpr double after[3][3] = {{0.96899999999999997, -1.978, 0.39950000000000002},
                                  {0.93013099999999993, -1.9962219999999999, 0.35865050000000004},
                                  {0.96421876899999992, -2.010625578, 0.29652729950000006}};
  Parameter<double> p{"p", Weight<double>{{1.0, -2.0, 0.5}}};
  Sgd optimizer{std::vector{reference(p)}, {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01}};
  CHECK(optimizer.bytes() == 3 * sizeof(double));
  for (int step = 0; step < 3; ++step) {
    for (int i = 0; i < 3; ++i) p.grad(0, i) = gradients[step][i];
    optimizer.step();
    for (int i = 0; i < 3; ++i) {
      CHECK(std::abs(p.value(0, i) - after[step][i]) <= 8 * std::numeric_limits<double>::epsilon() * std::abs(after[step][i]));
    }
  }
}

TEST_CASE("plain Sgd keeps no state") {
  Parameter<float> p{"p", Weight<float>::Constant(2, 2, 1.0f)};
  Sgd optimizer{std::vector{reference(p)}, {.learning_rate = 0.5}};
  p.grad.setConstant(0.5f);
  optimizer.step();
  CHECK(p.value == Weight<float>::Constant(2, 2, 0.75f));
  CHECK(optimizer.bytes() == 0);
  CHECK(optimizer.bytes() == 0);
  CHECK_THROWS_AS((Sgd{std::vector{reference(p)}, {.momentum = 1}}), ValueError);
}
