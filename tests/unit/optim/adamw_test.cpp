#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/optim/adamw.hpp>

using namespace lowrank;

namespace {

constexpr double gradients[3][3] = {{0.3, -0.2, 1.0}, {0.1, 0.4, -0.5}, {-0.7, 0.0, 0.25}};

template <class S>
Parameter<S> start() {
  return {"p", Weight<S>{{S(1), S(-2), S(0.5)}}};
}

template <class S>
void set_gradient(Parameter<S>& p, int step) {
  for (int i = 0; i < 3; ++i) p.gradient()(0, i) = static_cast<S>(gradients[step][i]);
}

template <class S>
void check_near(const Weight<S>& given, const double* expected, double epsilons) {
  for (Index i = 0; i < given.size(); ++i) {
    const double tolerance = epsilons * static_cast<double>(std::numeric_limits<S>::epsilon()) * std::abs(expected[i]);
    CHECK(std::abs(static_cast<double>(given(0, i)) - expected[i]) <= tolerance);
  }
}

}  // namespace

// torch.optim.AdamW in float64: learning rate 0.1, betas (0.9, 0.999), eps 1e-8, weight decay 0.01.
constexpr double adamw_after[3][3] = {{0.89900000333333319, -1.8980000049999997, 0.39950000099999999},
                                      {0.81099461215386226, -1.9327123565410367, 0.37246679736990318},
                                      {0.8407106162699105, -1.9590795518364226, 0.33805141626647661}};

TEST_CASE_TEMPLATE("AdamW takes the steps of torch.optim.AdamW", S, float, double) {
  Parameter<S> p = start<S>();
  AdamW optimizer{std::vector{reference(p)}, {.learning_rate = 0.1}};
  CHECK(optimizer.bytes() == 6 * sizeof(S));
  for (int step = 0; step < 3; ++step) {
    set_gradient(p, step);
    optimizer.step();
    check_near(p.value, adamw_after[step], 16);
  }
  CHECK(optimizer.steps() == 3);
  optimizer.zero_grad();
  CHECK(p.grad.isZero(0));
}

TEST_CASE("without a gradient AdamW only decays, and a group may switch that off") {
  Parameter<double> weight = start<double>(), norm = start<double>();
  AdamW optimizer{std::vector{reference(weight)}, {.learning_rate = 0.5, .weight_decay = 0.1}};
  optimizer.add_group({reference(norm)}, {.learning_rate = 0.5, .weight_decay = 0});
  optimizer.step();
  CHECK(weight.value(0, 0) == 0.95);
  CHECK(norm.value(0, 0) == 1.0);
  optimizer.set_learning_rate(0.25);
  CHECK(optimizer.learning_rate(0) == 0.25);
  CHECK(optimizer.learning_rate(1) == 0.25);
}

TEST_CASE("AdamW goes on from saved state with the same bits") {
  Parameter<float> p = start<float>(), q = start<float>();
  AdamW first{std::vector{reference(p)}}, second{std::vector{reference(q)}};
  for (int step = 0; step < 2; ++step) {
    set_gradient(p, step);
    first.step();
  }
  q.value = p.value;
  auto from = first.state();
  auto to = second.state();
  REQUIRE(from.size() == 5);  // moments, steps, learning rates
  CHECK(from[0].name == "0/p/first_moment");
  CHECK(from[1].name == "0/p/second_moment");
  CHECK(from[0].shape == std::vector<Index>{1, 3});
  for (std::size_t i = 0; i < from.size(); ++i) std::ranges::copy(from[i].bytes, to[i].bytes.begin());
  CHECK(second.steps() == 2);
  set_gradient(p, 2);
  set_gradient(q, 2);
  first.step();
  second.step();
  CHECK(p.value == q.value);
}

TEST_CASE("options outside their range are errors") {
  Parameter<float> p = start<float>();
  const auto make = [&](AdamWOptions options) { AdamW optimizer{std::vector{reference(p)}, options}; };
  CHECK_THROWS_AS(make({.learning_rate = -1}), ValueError);
  CHECK_THROWS_AS(make({.beta1 = 1}), ValueError);
  CHECK_THROWS_AS(make({.beta2 = -0.1}), ValueError);
  CHECK_THROWS_AS(make({.epsilon = -1e-8}), ValueError);
  CHECK_THROWS_AS(make({.weight_decay = std::nan("")}), ValueError);
}
