#include <doctest/doctest.h>

#include <05_lora_layer.hpp>

#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/optim/sgd.hpp>

#include <exercises/difference.hpp>

using Eigen::MatrixXd;
using namespace lowrank;

namespace {
template <class M = MatrixXd>
M random(Index rows, Index cols, std::uint64_t seed) {
  M m(rows, cols);
  fill_normal(m, 1, Random(seed));
  return m;
}
}  // namespace

TEST_CASE("exercise 5a: gradients of the factors") {
  const MatrixXd w = random(4, 6, 1), x = random(6, 5, 2), t = random(4, 5, 3);
  MatrixXd b = random(4, 2, 4), a = random(2, 6, 5);
  const double s = 1.5;
  const auto loss = [&] { return 0.5 * ((w + s * b * a) * x - t).squaredNorm(); };
  const MatrixXd d = ((w + s * b * a) * x - t) * x.transpose();
  const FactorGradients gradients = factor_gradients(d, b, a, s);
  CHECK((gradients.a - exercises::difference(a, loss)).norm() < 1e-5);
  CHECK((gradients.b - exercises::difference(b, loss)).norm() < 1e-5);
}

TEST_CASE("exercise 5b: the first step changes the weight by a matrix of rank r") {
  const auto w = random<Weight<double>>(5, 7, 1);
  const auto x = random<Activation<double>>(7, 9, 2), target = random<Activation<double>>(5, 9, 3);
  LoraLinear layer{Linear{w}, {.rank = 3, .alpha = 6}};
  Sgd<double> optimizer{parameters(layer), {.learning_rate = 0.05}};
  const MatrixXd d = 2.0 / static_cast<double>(target.size()) * (w * x - target) * x.transpose();  // of the mean of squares
  Tape<double> tape;
  tape.backward(mse(layer(tape.input(x)), target));
  optimizer.step();
  const MatrixXd change = layer.scale() * layer.b().value * layer.a().value;
  CHECK((first_change(d, layer.a().value, layer.scale(), 0.05) - change).norm() < 1e-12);
}
