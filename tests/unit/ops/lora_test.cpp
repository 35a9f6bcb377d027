#include <doctest/doctest.h>

#include <lowrank/ops/lora.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

TEST_CASE("a low-rank layer is W + s B A, and its backward equals finite differences") {
  auto w = random_matrix<Weight<double>>(7, 5, 1), a = random_matrix<Weight<double>>(3, 5, 2), b = random_matrix<Weight<double>>(7, 3, 3);
  auto x = random_matrix<Activation<double>>(5, 4, 4);
  const auto g = random_matrix<Activation<double>>(7, 4, 5);
  const DenseSource<double> source(w.data(), 7, 5);
  const LowRank<double> update{{a.data(), 3, 5}, {b.data(), 7, 3}, 0.5};
  const double epsilon = std::numeric_limits<double>::epsilon();

  const auto [y, h] = lora_forward(source, update, x);
  const Weight<double> merged = w + 0.5 * b * a;
  CHECK(largest_difference(y, merged * x) < 20 * epsilon);
  CHECK(largest_difference(h, a * x) < 10 * epsilon);

  SUBCASE("with the base") {
    const auto loss = [&] { return lora_forward(source, update, x).y.cwiseProduct(g).sum(); };
    const auto [dx, da, db] = lora_backward(source, update, x, h, g);
    CHECK(gradient_error(x, dx, loss) < gradient_tolerance);
    CHECK(gradient_error(a, da, loss) < gradient_tolerance);
    CHECK(gradient_error(b, db, loss) < gradient_tolerance);
  }
  SUBCASE("the update alone") {
    const auto loss = [&] { return lora_update_forward(update, x).y.cwiseProduct(g).sum(); };
    const auto [dx, da, db] = lora_update_backward(update, x, h, g);
    CHECK(gradient_error(x, dx, loss) < gradient_tolerance);
    CHECK(gradient_error(a, da, loss) < gradient_tolerance);
    CHECK(gradient_error(b, db, loss) < gradient_tolerance);
    CHECK(lora_update_backward(update, x, h, g, false).dx.size() == 0);
  }
}

TEST_CASE("an update that does not fit is refused") {
  const Weight<float> a = Weight<float>::Zero(2, 5), b = Weight<float>::Zero(4, 3);
  const LowRank<float> update{{a.data(), 2, 5}, {b.data(), 4, 3}, 1};
  CHECK_THROWS_WITH_AS(lora_update_forward(update, Activation<float>::Zero(5, 1)), doctest::Contains("A is [2, 5], B is [4, 3]"),
                       ShapeError);
}

TEST_CASE("no tokens give no output and zero factor gradients") {
  const Weight<float> a = Weight<float>::Ones(2, 5), b = Weight<float>::Ones(4, 2);
  const LowRank<float> update{{a.data(), 2, 5}, {b.data(), 4, 2}, 1};
  const Activation<float> x(5, 0), g(4, 0);
  const auto forward = lora_update_forward(update, x);
  CHECK(forward.y.rows() == 4);
  CHECK(lora_update_backward(update, x, forward.h, g).da.isZero(0));
}
