#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/q4_1.hpp>

#include "nn_support.hpp"

using namespace lowrank;
using namespace nn_test;

static_assert(LinearLayer<LoraLinear<Linear<float>>> && LinearLayer<LoraLinear<QuantizedLinear<Q4_1>>>);
static_assert(LinearLayer<LoraLinear<LoraLinear<Linear<double>, 4>>>);

TEST_CASE("the quickstart trains a low-rank update on a 4-bit weight") {
  const Weight<float> w = random<float>(32, 64, 1);
  const Activation<float> x = random<float>(64, 8, 2);
  const std::vector<std::int32_t> targets{3, 1, 4, 1, 5, 9, 2, 6};

  QuantizedMatrix<Nf4<64, DoubleQuant>> q = quantize<Nf4<64, DoubleQuant>>(w);
  Weight<float> d = dequantize(q);
  QuantizationError e = quantization_error(w, q);
  CHECK(e.bits_per_weight < 4.6);

  LoraLinear layer{QuantizedLinear{q}, {.rank = 16, .alpha = 32}};
  static_assert(std::is_same_v<decltype(layer), LoraLinear<QuantizedLinear<Nf4<64, DoubleQuant>>, Dynamic>>);
  Activation<float> y = layer(x);
  CHECK(y.isApprox(d * x, 1e-5f));
  AdamW optimizer{parameters(layer), {.learning_rate = 2e-2f}};
  Tape tape;
  float first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    Var loss = cross_entropy(layer(tape.input(x)), targets);
    (step == 0 ? first : last) = loss.item();
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  }
  CHECK(last < 0.1f * first);
  CHECK(dequantize(q) == d);
}

TEST_CASE("a fresh update is PEFT's: A uniform in 1/√in, B zero, scale alpha / r or alpha / √r") {
  LoraLinear layer{Linear<float>(64, 32, {.seed = 3}), {.rank = 16, .alpha = 32, .seed = 4}};
  const auto x = random<float>(64, 4, 5);
  CHECK(layer(x) == layer.base()(x));
  CHECK(layer.scale() == 2.0f);
  CHECK(layer.b().value.isZero(0));
  const float bound = 0.125f, largest = layer.a().value.cwiseAbs().maxCoeff();
  CHECK(largest <= bound);
  CHECK(largest > 0.99f * bound);
  const float deviation = std::sqrt(layer.a().value.squaredNorm() / 1024), expected = bound / std::sqrt(3.0f);
  CHECK(std::abs(deviation - expected) < 0.05f * expected);
  CHECK(LoraLinear{Linear<float>(8, 8), {.rank = 16, .alpha = 32, .use_rslora = true}}.scale() == 8.0f);

  const LoraLinear normal{Linear<float>(64, 32), {.rank = 16, .init = LoraInit::gaussian}};
  CHECK(std::abs(std::sqrt(normal.a().value.squaredNorm() / 1024) - 1.0f / 16) < 0.05f / 16);
  const LoraLinear other{Linear<float>(64, 32), {.rank = 16, .seed = 4, .stream = 1}};
  CHECK(other.a().value != layer.a().value);
}

TEST_CASE("the recorded layer keeps X, shared, and A X, when X needs no gradient it is not asked for one") {
  Tape tape;
  LoraLinear layer{Linear<float>(6, 6), {.rank = 2}};
  Var x = tape.input(random<float>(6, 2, 15));
  const std::weak_ptr<const Activation<float>> watch = x.shared();
  Var y = layer(x);
  CHECK(tape.size() == 1);
  CHECK(watch.use_count() == 2);
  x = Var{};
  CHECK(watch.use_count() == 1);
  tape.backward(sum(y));
  CHECK(watch.expired());
  CHECK_FALSE(layer.b().grad.isZero(0));
  layer.set_trainable(false);
  layer(tape.input(random<float>(6, 2, 15)));
  CHECK(tape.size() == 0);
}

TEST_CASE("static sizes and rank") {
  using Layer = LoraLinear<Linear<float, 64, 64>, 4>;
  Layer layer{Linear<float, 64, 64>{LinearOptions{.bias = true, .seed = 16}}};
  LoraLinear dynamic{Linear<float>(64, 64, {.bias = true, .seed = 16}), {.rank = 4}};
  seed_update(layer);
  seed_update(dynamic);
  const Activation<float, 64, 3> x = random<float>(64, 3, 17);
  const auto y = layer(x);
  static_assert(decltype(y)::RowsAtCompileTime == 64 && decltype(y)::ColsAtCompileTime == 3);
  static_assert(std::remove_reference_t<decltype(layer.a())>::Matrix::SizeAtCompileTime == 256);
  CHECK(y.isApprox(dynamic(x), 1e-5f));

  Tape tape;
  const auto train = [&](auto& l) { tape.backward(sum(l(tape.input(x)))); };
  train(layer);
  train(dynamic);
  CHECK(layer.a().grad.isApprox(dynamic.a().grad, 1e-5f));
  CHECK(layer.b().grad.isApprox(dynamic.b().grad, 1e-5f));
}

TEST_CASE("copies share a quantized base's bytes and own their update") {
  LoraLinear layer{QuantizedLinear{quantize<Q4_1>(Weight<float>(random<float>(8, 32, 18)))}, {.rank = 2}};
  seed_update(layer);
  LoraLinear copy = layer;
  static_assert(std::is_same_v<decltype(copy), decltype(layer)>);
  const auto x = random<float>(32, 2, 19);
  const Activation<float> before = layer(x);
  layer.b().value.setZero();
  CHECK(copy(x) == before);
  const auto moved = std::move(copy);
  CHECK(moved(x) == before);
}

TEST_CASE("misuse of LoraLinear is an error that says what to do") {
  CHECK_THROWS_WITH_AS((LoraLinear{Linear<float>(4, 4), {.rank = 0}}), "[lora] rank = 0; it must be at least 1", ValueError);
  CHECK_THROWS_AS((LoraLinear{Linear<float>(4, 4), {.dropout = 1}}), ValueError);
  CHECK_THROWS_AS((LoraLinear<Linear<float>, 4>{Linear<float>(4, 4), {.rank = 3}}), ValueError);
  LoraLinear layer{Linear<float>(576, 4), {.rank = 2}};
  const Activation<float> x = random<float>(512, 8, 20);
  CHECK_THROWS_WITH_AS(layer(x), "[lora_linear] x is [512, 8] but the layer expects in = 576; x is [in, tokens]", ShapeError);
  CHECK_THROWS_AS(layer(Var{Activation<float>(x)}), ShapeError);
}

TEST_CASE("fresh layers with default seeds: A, W and b have no numbers in common") {
  const LoraLinear layer{Linear<float>(64, 48), {.rank = 4}};
  const Weight<float>& w = layer.base().weight().value;
  std::set<float> seen(w.data(), w.data() + w.size());
  const auto in_common = [&](const auto& m) {
    return std::count_if(m.data(), m.data() + m.size(), [&](float x) { return seen.contains(x); });
  };
  CHECK(in_common(w) == w.size());
  CHECK(layer.a().value != w.topRows(4));
  CHECK(in_common(layer.a().value) <= 1);  // of 2^24 numbers
  CHECK(in_common(layer.base().bias().value) <= 1);
}
