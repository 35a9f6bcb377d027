#include <doctest/doctest.h>

#include <lowrank/ops/norm.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

TEST_CASE("rms_norm gives every token the root mean square of the weight") {
  for (const Index n : {1, 7, 8, 9, 64, 65}) {
    const auto x = random_matrix<Activation<double>>(n, 3, 1);
    const Activation<double> y = rms_norm_forward(x, Column<double>::Constant(n, 2.0), 0.0);
    for (Index t = 0; t < 3; ++t) CHECK(y.col(t).squaredNorm() / static_cast<double>(n) == doctest::Approx(4).epsilon(1e-14));
  }
  CHECK(rms_norm_forward(Activation<float>(5, 0), Column<float>::Ones(5), 1e-5f).cols() == 0);
  CHECK(rms_norm_forward(Activation<float>::Zero(5, 2), Column<float>::Ones(5), 1e-5f).isZero(0));
}

TEST_CASE("rms_norm_backward equals finite differences") {
  auto x = random_matrix<Activation<double>>(9, 4, 2);
  auto weight = random_matrix<Column<double>>(9, 1, 3);
  const auto g = random_matrix<Activation<double>>(9, 4, 4);
  const auto loss = [&] { return rms_norm_forward(x, weight, 1e-3).cwiseProduct(g).sum(); };
  const auto [dx, dweight] = rms_norm_backward(x, weight, 1e-3, g);
  CHECK(gradient_error(x, dx, loss) < gradient_tolerance);
  CHECK(gradient_error(weight, dweight, loss) < gradient_tolerance);
}

TEST_CASE("rms_norm has the same bits for any number of threads, and refuses a weight of another size") {
  const auto x = random_matrix<Activation<float>>(33, 300, 5), g = random_matrix<Activation<float>>(33, 300, 6);
  const auto weight = random_matrix<Column<float>>(33, 1, 7);
  CHECK(same_for_any_thread_count([&] { return rms_norm_backward(x, weight, 1e-5f, g).dweight; }));
  CHECK(same_for_any_thread_count([&] { return rms_norm_backward(x, weight, 1e-5f, g).dx; }));
  CHECK_THROWS_WITH_AS(rms_norm_forward(x, Column<float>::Ones(32), 1e-5f), doctest::Contains("weight is [32] but x is [33, 300]"),
                       ShapeError);
}
