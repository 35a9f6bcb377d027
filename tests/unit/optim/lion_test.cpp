#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include <lowrank/optim/lion.hpp>

using namespace lowrank;

TEST_CASE_TEMPLATE("Lion takes the steps of its paper's program", S, float, double) {
  // By hand: learning rate 0.1, decay 0.5, betas (0.9, 0.99); the third number never gets a gradient.
  const double gradients[3][3] = {{0.5, -0.25, 0}, {-0.01, 0.5, 0}, {-4.0, 0.0, 0}};
  const double after[3][3] = {{0.85, -1.8, 0.475}, {0.7075, -1.81, 0.45125}, {0.772125, -1.8195, 0.4286875}};
  Parameter<S> p("p", Weight<S>{{S(1), S(-2), S(0.5)}});
  Lion optimizer{std::vector{reference(p)}, {.learning_rate = 0.1, .weight_decay = 0.5}};
  CHECK(optimizer.bytes() == 3 * sizeof(S));
  for (int step = 0; step < 3; ++step) {
    for (int i = 0; i < 3; ++i) p.gradient()(0, i) = static_cast<S>(gradients[step][i]);
    optimizer.step();
    CAPTURE(step);
    for (int i = 0; i < 3; ++i)
      CHECK(std::abs(static_cast<double>(p.value(0, i)) - after[step][i]) <= 8 * static_cast<double>(std::numeric_limits<S>::epsilon()));
  }
  CHECK(optimizer.state()[0].name == "0/p/momentum");
  CHECK_THROWS_AS((Lion{std::vector{reference(p)}, {.beta2 = 1}}), ValueError);
  CHECK_THROWS_AS((Lion{std::vector{reference(p)}, {.learning_rate = -1}}), ValueError);
}
