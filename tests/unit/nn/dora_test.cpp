#include <doctest/doctest.h>

#include <limits>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>

#include "nn_support.hpp"

namespace {

using namespace lowrank;
using namespace nn_test;

template <class S>
Weight<S> random_weight(Index rows, Index cols, std::uint64_t seed) {
  Weight<S> w(rows, cols);
  fill_normal(w, 0.3, Random(seed));
  return w;
}

template <class S>
S epsilon() {
  return std::numeric_limits<S>::epsilon();
}

/// A layer whose B and m have moved away from where they began.
template <class S>
auto moved_layer(double dropout = 0) {
  DoraLinear layer{Linear<S>(random_weight<S>(9, 14, 1), Column<S>::LinSpaced(9, -1, 1)),
                   {.rank = 3, .alpha = 5, .dropout = dropout, .seed = 2}};
  layer.b().value = random_weight<S>(9, 3, 3);
  layer.magnitude().value.array() *= random_weight<S>(9, 1, 4).array() + S(1);
  return layer;
}

template <class Layer>
auto direction(const Layer& layer) {
  using S = typename Layer::Scalar;
  return Weight<S>(layer.base().weight().value + layer.scale() * layer.b().value * layer.a().value);
}

/// DoRA with n fixed: what the paper differentiates.
struct FixedNorms : LoraWeights<double> {
  FixedNorms(const DoraWeights<double>& of, Column<double> n) : LoraWeights<double>(of), magnitude(of.magnitude), norms(std::move(n)) {}
  Parameter<double> magnitude;
  Column<double> norms;

  Plan<double> plan(const PlanRequest<double>& request) {
    Plan<double> plan = LoraWeights<double>::plan(request);
    plan.gain = {dora_gain(magnitude.value, norms), magnitude.value.data(), norms};
    plan.trains_gain = true;
    return plan;
  }
  void add_gradients(const PlanGradients<double>& gradients) {
    LoraWeights<double>::add_gradients(gradients);
    add_gradient(magnitude, gradients.gain);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    LoraWeights<double>::visit_parameters(visitor);
    visitor(magnitude);
  }
};

}  // namespace

TEST_CASE("norms by factors are the norms of the rows of W + s B A") {
  auto layer = moved_layer<double>();
  const Column<double> expected = direction(layer).rowwise().norm();
  CHECK(layer.update().norms(lowrank::detail::layer_view(layer.base())).isApprox(expected, 64 * epsilon<double>()));
}

TEST_CASE("a fresh DoRA layer gives what its base gives, dense and quantized") {
  const Weight<float> w = random_weight<float>(70, 96, 5);
  const auto x = random_columns<float>(96, 11, 6);
  const auto check_base = [&](auto base) {
    const DoraLinear layer{base, {.rank = 4}};
    CHECK(layer.magnitude().size() == 70);
    CHECK(layer(x).isApprox(base(x), 16 * epsilon<float>()));
  };
  check_base(Linear<float>(w));
  check_base(QuantizedLinear{quantize<Nf4<32>>(w)});
  check_base(QuantizedLinear{quantize<Q4_1>(w)});
}

TEST_CASE("DoRA computes (m / n) ∘ (W + s B A) x + b with and without a tape, prepared or not") {
  auto layer = moved_layer<float>();
  const auto x = random_columns<float>(14, 6, 7);
  const Weight<float> v = direction(layer);
  const Column<float> gain = layer.magnitude().value.col(0).cwiseQuotient(v.rowwise().norm());
  const Activation<float> expected = (gain.asDiagonal() * (v * x)).colwise() + layer.base().bias().value.col(0);
  CHECK(layer(x).isApprox(expected, 32 * epsilon<float>()));
  Tape<float> tape;
  CHECK(layer(tape.variable(x)).value().isApprox(expected, 32 * epsilon<float>()));
  CHECK(layer.transposed_product(random_columns<float>(9, 4, 8))
            .isApprox((gain.asDiagonal() * v).transpose() * random_columns<float>(9, 4, 8), 64 * epsilon<float>()));
  layer.prepare();
  CHECK(layer(x).isApprox(expected, 32 * epsilon<float>()));
}

TEST_CASE("gradients of DoRA with its norms held constant, in double") {
  auto layer = moved_layer<double>();
  Adapted fixed(layer.base(), FixedNorms{layer.update(), layer.update().norms(lowrank::detail::layer_view(layer.base()))});
  const auto function = [&](const std::vector<Var<double>>& x) { return fixed(x[0]); };
  const auto report = gradcheck(function, {random_columns<double>(14, 5, 9)}, parameters(fixed));
  CHECK_MESSAGE(report.worst < 1e-8, report.where);
  // And the layer's gradients are those.
  const auto gradients = [&](auto& of) {
    for (auto& parameter : parameters(of)) std::ranges::fill(parameter.grad(), 0.0);
    Tape<double> tape;
    tape.backward(of(tape.variable(random_columns<double>(14, 5, 9))), Activation<double>::Ones(9, 5));
    return Weight<double>(of.update().b.grad);
  };
  CHECK(gradients(layer) == gradients(fixed));
}

TEST_CASE("dropout is on the input of the direction alone: W x + b + (g - 1) W d + g s B A d") {
  auto layer = moved_layer<double>(0.5);
  const auto x = random_columns<double>(14, 6, 10);
  Tape<double> tape;
  const Activation<double> y = layer(tape.variable(x)).value();
  const Activation<double> d = dropout_forward(x, 0.5, {layer.update().dropout.seed, 0});
  const Weight<double> v = direction(layer), w = layer.base().weight().value;
  const Column<double> gain = layer.magnitude().value.col(0).cwiseQuotient(v.rowwise().norm());
  const Activation<double> expected = ((w * x - w * d + gain.asDiagonal() * (v * d)).colwise() + layer.base().bias().value.col(0)).eval();
  CHECK(y.isApprox(expected, 64 * epsilon<double>()));
}

TEST_CASE("a row of zeros has no direction: it gives zero and no gradient that is not a number") {
  Weight<float> w = random_weight<float>(5, 8, 11);
  w.row(2).setZero();
  DoraLinear layer{Linear<float>(w), {.rank = 2}};
  Tape<float> tape;
  const auto y = layer(tape.variable(random_columns<float>(8, 3, 12)));
  CHECK(y.value().row(2).isZero());
  tape.backward(y, Activation<float>::Ones(5, 3));
  for (const auto& parameter : parameters(layer))
    for (const float g : parameter.grad()) CHECK(std::isfinite(g));
}

TEST_CASE("layers together: DoRA over a base with a bias, and a bias of B, give what they give alone, forward and backward") {
  for (const bool zero_length : {false, true}) {
    const Weight<float> w = random_weight<float>(40, 64, 13);
    AdaptedLinear first{AnyLinear(AnyMatrix(quantize<Nf4<32>>(w)), Column<float>::LinSpaced(40, -1, 1))},
        second{AnyLinear(AnyMatrix(quantize<Q4_1>(w)))};
    first.base.bias().trainable = true;
    DoraWeights<float> a{make_lora<float>(64, 40, {.rank = 4, .alpha = 8, .seed = 1})};
    auto b = make_lora<float>(64, 40, {.rank = 3, .lora_bias = true});
    a.b.value = random_weight<float>(40, 4, 14), b.b.value = random_weight<float>(40, 3, 15);
    b.bias.value = random_weight<float>(40, 1, 16);
    a.begin(lowrank::detail::layer_view(first.base));
    a.magnitude.value *= 1.5f;
    if (zero_length) a.magnitude.value(3, 0) = 0;
    const auto x = random_columns<float>(64, 20, 17);
    const LayerUse uses[] = {{&first, &a}, {&second, &b}};
    std::vector<Weight<float>> gradients[2];
    for (const bool together : {false, true}) {
      const auto clear = [](auto& parameter) { parameter.gradient().setZero(); };
      a.visit_parameters(clear), b.visit_parameters(clear);
      first.base.bias().gradient().setZero();
      Tape<float> tape;
      const Var<float> input = tape.variable(x);
      std::vector<Var<float>> y;
      if (together)
        y = forward_together(uses, input);
      else
        for (const LayerUse& use : uses) y.push_back(use.layer->forward(input, use.update));
      tape.backward(sum(y[0] * y[0]) + sum(y[1]));
      gradients[together] = {y[0].value(), y[1].value(), tape.gradient(input),  a.a.grad, a.b.grad, a.magnitude.grad,
                             b.a.grad,     b.bias.grad,  first.base.bias().grad};
    }
    for (std::size_t i = 0; i < gradients[0].size(); ++i) {
      CAPTURE(i);
      CHECK(gradients[1][i].isApprox(gradients[0][i], 256 * epsilon<float>()));
    }
    const Activation<float> one = x.leftCols(1);
    CHECK(forward_together(uses, Var<float>(one))[0].value().isApprox(first.forward(one, &a), 64 * epsilon<float>()));
    CHECK(forward_together(uses, Var<float>(one))[1].value().isApprox(second.forward(one, &b), 64 * epsilon<float>()));
  }
}

TEST_CASE("DoRA with a bias of B is refused") {
  CHECK_THROWS_AS((DoraLinear{Linear<float>(4, 4), {.rank = 2, .lora_bias = true}}), ValueError);
}
