#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>

#include "nn_support.hpp"

using namespace lowrank;
using namespace nn_test;

namespace {

using Vars = std::vector<Var<double>>;

// |a - b| in units of epsilon times a product's magnitude, the sum of n terms up to 1.
template <class A, class B>
double epsilons(const A& a, const B& b, Index n) {
  using S = typename A::Scalar;
  return static_cast<double>((a - b).cwiseAbs().maxCoeff()) / static_cast<double>(std::numeric_limits<S>::epsilon() * static_cast<S>(n));
}

template <class Element>
StoredMatrix<Element> stored(const Weight<float>& w) {
  Buffer buffer = Buffer::allocate(static_cast<std::size_t>(w.size()) * sizeof(Element));
  for (Index i = 0; i < w.size(); ++i) buffer.mutable_as<Element>()[i] = Element(w.data()[i]);
  return {w.rows(), w.cols(), buffer};
}

}  // namespace

static_assert(LinearLayer<Linear<float>> && LinearLayer<Linear<double, 3, 5>> && LinearLayer<FrozenLinear<Half>>);
static_assert(HasSource<Linear<float>> && HasSource<FrozenLinear<BFloat16>>);
static_assert(!LinearLayer<Weight<float>> && !LinearLayer<Parameter<float>>);

TEST_CASE("Linear is W x + b, with and without a tape") {
  const Weight<float> w = random<float>(5, 7, 1);
  const Column<float> b = random<float>(5, 1, 2);
  Linear layer{w, b};
  const auto x = random<float>(7, 3, 3);
  const Activation<float> expected = (w * x).colwise() + b;
  CHECK(epsilons(layer(x), expected, 7) < 1);
  CHECK(epsilons(layer(Var{Activation<float>(x)}).value(), expected, 7) < 1);
  CHECK(epsilons(layer.product(x), w * x, 7) < 1);
  CHECK(epsilons(layer.transposed_product(layer.product(x)), w.transpose() * (w * x), 35) < 1);
  CHECK(layer.weight_bytes() == 4 * 35);
}

TEST_CASE("gradients of Linear: input, weight, bias, frozen: input alone") {
  Linear<double> layer(7, 5, {.bias = true, .seed = 4});
  const auto apply = [&](const Vars& v) { return layer(v[0]); };
  auto report = gradcheck(apply, {random<double>(7, 3, 5)}, parameters(layer));
  INFO(report.where);
  CHECK(report.worst < 2e-9);
  CHECK(trainable_parameters(layer) == 40);
  layer.set_trainable(false);
  layer.weight().zero_grad();
  CHECK(parameters(layer).empty());
  CHECK(gradcheck(apply, {random<double>(7, 3, 5)}).worst < 2e-9);
  CHECK(layer.weight().grad.isZero(0));
}

TEST_CASE("a frozen layer keeps nothing of its input, a trainable one keeps it") {
  Tape tape;
  Linear<float> layer(4, 4);
  for (const bool trainable : {false, true}) {
    layer.set_trainable(trainable);
    Var leaf = tape.variable(random<float>(4, 2, 6));
    Var x = scale(leaf, 2.0f);
    const std::weak_ptr<const Activation<float>> watch = x.shared();
    Var y = layer(x);
    x = Var{};
    CHECK(watch.expired() == !trainable);
    tape.clear();
  }
  layer.set_trainable(false);
  layer(tape.input(random<float>(4, 2, 6)));
  CHECK(tape.size() == 0);
}

TEST_CASE("a fresh layer of static sizes is made from options as one of run-time sizes is") {
  const Linear<float, 6, 4> braces({.bias = true, .seed = 7}), named(LinearOptions{.bias = true, .seed = 7});
  const Linear<float> dynamic(6, 4, {.bias = true, .seed = 7});
  CHECK(braces.weight().value == dynamic.weight().value);
  CHECK(named.weight().value == dynamic.weight().value);
  CHECK(braces.bias().value == dynamic.bias().value);
  const Linear<float, 6, 4> of_expression(2.0f * dynamic.weight().value, {});
  CHECK(of_expression.weight().value == 2.0f * dynamic.weight().value);
}

TEST_CASE("static sizes flow through, and give what dynamic sizes give") {
  const LinearOptions options{.bias = true, .seed = 7};
  Linear<float, 6, 4> fixed{options};
  Linear<float> dynamic(6, 4, options);
  CHECK(fixed.weight().value == dynamic.weight().value);
  const Activation<float, 6, 3> x = random<float>(6, 3, 8);
  const auto y = fixed(x);
  static_assert(decltype(y)::RowsAtCompileTime == 4 && decltype(y)::ColsAtCompileTime == 3);
  CHECK(epsilons(y, dynamic(x), 6) < 1);
  const auto column = fixed(x.col(1));
  static_assert(decltype(column)::SizeAtCompileTime == 4);
  CHECK(epsilons(fixed.transposed_product(y), dynamic.transposed_product(y), 4) < 1);

  Linear<double, 3, 2> small;
  const auto report = gradcheck([&](const Vars& v) { return small(v[0]); }, {random<double>(3, 4, 9)}, parameters(small));
  CHECK(report.worst < 2e-9);
  Linear<double, 3, 1> one_row;
  CHECK(gradcheck([&](const Vars& v) { return one_row(v[0]); }, {random<double>(3, 4, 9)}, parameters(one_row)).worst < 2e-9);
  Linear<double, 1, 3> one_column;
  CHECK(gradcheck([&](const Vars& v) { return one_column(v[0]); }, {random<double>(1, 4, 9)}, parameters(one_column)).worst < 2e-9);
}

TEST_CASE("layers copy and move as values") {
  Linear<float> layer(4, 3, {.seed = 10});
  Linear<float> copy = layer;
  const auto x = random<float>(4, 2, 11);
  const Activation<float> before = layer(x);
  layer.weight().value.setZero();
  CHECK(copy(x) == before);
  const Linear<float> moved = std::move(copy);
  CHECK(moved(x) == before);
}

TEST_CASE_TEMPLATE("FrozenLinear reads its Buffer", Element, float, BFloat16, Half) {
  const Weight<float> w = random<float>(9, 8, 12);
  const FrozenLinear<Element> layer(stored<Element>(w), Column<float>(random<float>(9, 1, 13)));
  Weight<float> rounded(9, 8);
  layer.source().decode(0, 9, 0, 8, rounded.data(), 8);
  CHECK((rounded - w).cwiseAbs().maxCoeff() <= 0.5f / 128);
  const auto x = random<float>(8, 3, 14);
  const Activation<float> expected = (rounded * x).colwise() + Column<float>(layer.bias().value);
  CHECK(epsilons(layer(x), expected, 8) < 1);
  FrozenLinear<Element> copy = layer;
  CHECK(copy.weight().data() == layer.weight().data());
  CHECK(parameters(copy).empty());
  CHECK(layer.weight_bytes() == 72 * sizeof(Element));
}

TEST_CASE("gradients of a frozen layer, its bias made trainable") {
  FrozenLinear<BFloat16, double> layer(stored<BFloat16>(random<float>(5, 6, 15)), Column<double>(random<double>(5, 1, 16)));
  layer.set_trainable(true);
  const auto references = parameters(layer);
  REQUIRE(references.size() == 1);
  CHECK(gradcheck([&](const Vars& v) { return layer(v[0]); }, {random<double>(6, 4, 17)}, references).worst < 2e-9);
}

TEST_CASE("wrong shapes are named") {
  Linear<float> layer(4, 3);
  const auto x = random<float>(5, 2, 18);
  CHECK_THROWS_WITH_AS(layer(x), "[linear] x is [5, 2] but the layer expects in = 4; x is [in, tokens]", ShapeError);
  CHECK_THROWS_WITH_AS(layer(Var{Activation<float>(x)}), "[linear] x is [5, 2] but the layer expects in = 4; x is [in, tokens]",
                       ShapeError);
  CHECK_THROWS_AS((Linear{Weight<float>(3, 4), Column<float>(4)}), ShapeError);
  CHECK_THROWS_AS(Linear<float>(0, 3), ShapeError);
  CHECK_THROWS_WITH_AS(Linear<float>(-1, 4), doctest::Contains("[linear] the weight [out, in] cannot be [4, -1]"), ShapeError);
  CHECK_THROWS_AS(Linear<float>(Index{1} << 40, Index{1} << 40), ShapeError);
  CHECK_THROWS_AS((StoredMatrix<Half>(3, 3, Buffer::allocate(17))), ShapeError);
  CHECK_THROWS_AS((StoredMatrix<Half>(-1, 3, Buffer())), ShapeError);
  CHECK_THROWS_AS((StoredMatrix<float>(Index{1} << 32, Index{1} << 32, Buffer())), ShapeError);
}
