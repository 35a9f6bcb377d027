#include <doctest/doctest.h>

#include <vector>

#include <lowrank/ops/loss.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

namespace {

std::vector<std::int32_t> some_targets(Index tokens, Index vocabulary) {
  std::vector<std::int32_t> targets;
  for (Index t = 0; t < tokens; ++t) targets.push_back(t % 4 == 1 ? ignored_target : static_cast<std::int32_t>(t * 5 % vocabulary));
  return targets;
}

}  // namespace

TEST_CASE("cross-entropy is the mean over counted tokens, its backward equals finite differences") {
  auto logits = random_matrix<Activation<double>>(7, 6, 1);
  const auto targets = some_targets(6, 7);
  double expected = 0;
  for (Index t = 0; t < 6; ++t) {
    const std::int32_t target = targets[static_cast<std::size_t>(t)];
    if (target != ignored_target) expected += std::log(logits.col(t).array().exp().sum()) - logits(target, t);
  }
  const auto [loss, count, total] = cross_entropy_forward(logits, targets);
  CHECK(count == 4);
  CHECK(loss == doctest::Approx(expected / 4).epsilon(1e-14));
  CHECK(total == doctest::Approx(expected).epsilon(1e-14));
  const Activation<double> gradient = cross_entropy_backward(logits, targets, 3.0);
  CHECK(gradient_error(logits, gradient, [&] { return 3 * cross_entropy_forward(logits, targets).loss; }) < gradient_tolerance);
  CHECK(gradient.col(1).isZero(0));
  CHECK(gradient.colwise().sum().cwiseAbs().maxCoeff() < 1e-15);
  CHECK(negative_log_likelihood(logits, targets).sum() == doctest::Approx(total).epsilon(1e-14));
}

TEST_CASE("nothing counted gives loss 0 and gradient 0") {
  const Activation<float> logits = Activation<float>::Ones(5, 2);
  const std::vector<std::int32_t> targets(2, ignored_target);
  CHECK(cross_entropy_forward(logits, targets).loss == 0);
  CHECK(cross_entropy_forward(logits, targets).count == 0);
  CHECK(cross_entropy_backward(logits, targets).isZero(0));
  const Weight<float> w = Weight<float>::Ones(5, 3);
  const auto fused = linear_cross_entropy(DenseSource<float>(w.data(), 5, 3), Activation<float>::Ones(3, 2), targets);
  CHECK(fused.loss == 0);
  CHECK(fused.dx.isZero(0));
  CHECK(cross_entropy_forward(Activation<float>(5, 0), {}).loss == 0);
}

TEST_CASE("large logits: loss and gradient stay finite, and a sure token keeps its small loss") {
  Activation<float> logits(3, 3);
  logits << 1e30f, 1000, 0, -1e30f, 990, -1000, 0, 990, -1000;
  const std::vector<std::int32_t> targets{1, 0, 0};
  const auto losses = negative_log_likelihood(logits, targets);
  CHECK(losses[0] == 2e30f);
  CHECK(losses[1] == doctest::Approx(std::log1p(2 * std::exp(-10.0))).epsilon(1e-2));  // 1 + 9.1e-5 in float
  CHECK(losses[2] == 0);
  CHECK(cross_entropy_backward(logits, targets).allFinite());
}

TEST_CASE("linear_cross_entropy equals product and loss, over several slices") {
  const Index tokens = 300, vocabulary = 40, dim = 9;
  const auto w = random_matrix<Weight<double>>(vocabulary, dim, 2);
  const auto x = random_matrix<Activation<double>>(dim, tokens, 3);
  const auto targets = some_targets(tokens, vocabulary);
  const DenseSource<double> source(w.data(), vocabulary, dim);
  Weight<double> dw = Weight<double>::Zero(vocabulary, dim);
  const auto fused = linear_cross_entropy(source, x, targets, Compute::fp32, true, &dw);
  const Activation<double> logits = w * x, dlogits = cross_entropy_backward(logits, targets);
  CHECK(fused.count == 225);
  CHECK(fused.loss == doctest::Approx(cross_entropy_forward(logits, targets).loss).epsilon(1e-14));
  CHECK(largest_difference(fused.dx, w.transpose() * dlogits) < 1e-16);
  CHECK(largest_difference(dw, dlogits * x.transpose()) < 1e-15);
  CHECK(linear_cross_entropy(source, x, targets, Compute::fp32, false).dx.size() == 0);
  CHECK(same_for_any_thread_count([&] { return linear_cross_entropy(source, x, targets).dx; }));
}

TEST_CASE("linear_cross_entropy's gradient equals finite differences") {
  const auto w = random_matrix<Weight<double>>(5, 4, 4);
  auto x = random_matrix<Activation<double>>(4, 3, 5);
  const std::vector<std::int32_t> targets{4, ignored_target, 0};
  const DenseSource<double> source(w.data(), 5, 4);
  const auto loss = [&] { return linear_cross_entropy(source, x, targets, Compute::fp32, false).loss; };
  CHECK(gradient_error(x, linear_cross_entropy(source, x, targets).dx, loss) < gradient_tolerance);
}

TEST_CASE("targets outside the vocabulary and of another number are refused") {
  const Activation<float> logits = Activation<float>::Zero(5, 2);
  const std::vector<std::int32_t> one{0}, large{0, 5}, negative{0, -1};
  CHECK_THROWS_WITH_AS(cross_entropy_forward(logits, large), doctest::Contains("target 5 at token 1 is outside [0, 5)"), ValueError);
  CHECK_THROWS_AS(cross_entropy_backward(logits, negative), ValueError);
  CHECK_THROWS_AS(cross_entropy_forward(logits, one), ShapeError);
}

TEST_CASE("mse and its backward") {
  auto x = random_matrix<Activation<double>>(3, 2, 6);
  const auto target = random_matrix<Activation<double>>(3, 2, 7);
  CHECK(mse_forward(x, target) == doctest::Approx((x - target).squaredNorm() / 6).epsilon(1e-14));
  CHECK(gradient_error(x, mse_backward(x, target, 2.0), [&] { return 2 * mse_forward(x, target); }) < gradient_tolerance);
  CHECK(mse_forward(Activation<float>(3, 0), Activation<float>(3, 0)) == 0);
  CHECK_THROWS_AS(mse_forward(x, target.leftCols(1)), ShapeError);
}
