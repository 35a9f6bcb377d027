#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/quantized_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/quant/error.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/q4_1.hpp>

using namespace lowrank;

namespace {

using Vars = std::vector<Var<double>>;

template <class S>
Activation<S> random(Index rows, Index cols, std::uint64_t seed) {
  Activation<S> x(rows, cols);
  fill_uniform(x, 1.0, Random(seed));
  return x;
}

// Fills B too, so that the update does something.
template <class Layer>
void seed_update(Layer& layer) {
  fill_uniform(layer.a().value, 1.0, Random(100));
  fill_uniform(layer.b().value, 1.0, Random(101));
}

template <class Layer>
GradcheckReport check_layer(Layer& layer, Index tokens = 3) {
  return gradcheck([&](const Vars& v) { return layer(v[0]); }, {random<double>(layer.in_features(), tokens, 102)}, parameters(layer));
}

// Output and all gradients of the layer equal dense mathematics with the weight w, to rounding of sums of n terms.
template <class Layer>
void check_equals_dense(Layer layer, const Weight<double>& w) {
  seed_update(layer);
  const auto x = random<double>(w.cols(), 5, 103), g = random<double>(w.rows(), 5, 104);
  const Weight<double> a = layer.a().value, b = layer.b().value, full = w + layer.scale() * b * a;
  Tape<double> tape;
  const auto v = tape.variable(x);
  const auto y = layer(v);
  CHECK(y.value().isApprox(layer(x), 1e-14));
  tape.backward(y, g);
  const double tolerance = 64 * std::numeric_limits<double>::epsilon();
  CHECK(y.value().isApprox(full * x, tolerance));
  CHECK(tape.gradient(v).isApprox(full.transpose() * g, tolerance));
  CHECK(layer.a().grad.isApprox(layer.scale() * (b.transpose() * g) * x.transpose(), tolerance));
  CHECK(layer.b().grad.isApprox(layer.scale() * g * (a * x).transpose(), tolerance));
  CHECK(layer.product(x).isApprox(full * x, tolerance));
  CHECK(layer.transposed_product(g).isApprox(full.transpose() * g, tolerance));
}

}  // namespace

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

TEST_CASE("over Linear, NF4, NF4 with double quantization and Q4_1 the layer is dense mathematics on the dequantized weight") {
  const Weight<float> w = random<float>(48, 96, 6);
  const LoraOptions options{.rank = 5, .alpha = 7};
  check_equals_dense(LoraLinear{Linear{Weight<double>(w.cast<double>())}, options}, w.cast<double>());
  const auto nf4 = quantize<Nf4<64>>(w);
  check_equals_dense(LoraLinear{QuantizedLinear<Nf4<64>, double>{nf4}, options}, dequantize(nf4).cast<double>());
  const auto nested = quantize<Nf4<64, DoubleQuant>>(w);
  check_equals_dense(LoraLinear{QuantizedLinear<Nf4<64, DoubleQuant>, double>{nested}, options}, dequantize(nested).cast<double>());
  const auto q4_1 = quantize<Q4_1>(w);
  check_equals_dense(LoraLinear{QuantizedLinear<Q4_1, double>{q4_1}, options}, dequantize(q4_1).cast<double>());
}

TEST_CASE("gradients of LoraLinear over frozen, trainable, quantized and nested bases") {
  LoraLinear dense{Linear<double>(7, 5, {.bias = true, .seed = 7}), {.rank = 2}};
  seed_update(dense);
  CHECK(parameters(dense).size() == 2);
  CHECK(check_layer(dense).worst < 2e-9);
  dense.base().set_trainable(true);
  CHECK(parameters(dense).size() == 4);
  CHECK(check_layer(dense).worst < 2e-9);

  LoraLinear quantized{QuantizedLinear<Q4_1, double>{quantize<Q4_1>(Weight<double>(random<double>(5, 34, 8))), random<double>(5, 1, 9)},
                       {.rank = 3}};
  seed_update(quantized);
  CHECK(check_layer(quantized).worst < 2e-9);
  quantized.base().set_trainable(true);  // its bias
  CHECK(parameters(quantized).size() == 3);
  CHECK(check_layer(quantized).worst < 2e-9);

  LoraLinear nested{LoraLinear{Linear<double>(6, 4, {.seed = 10}), {.rank = 2}}, {.rank = 3}};
  seed_update(nested);
  seed_update(nested.base());
  CHECK(parameters(nested).size() == 2);  // wrapping freezes what is wrapped
  CHECK(check_layer(nested).worst < 2e-9);
  nested.base().set_trainable(true);
  CHECK(parameters(nested).size() == 4);
  CHECK(check_layer(nested).worst < 2e-9);
}

TEST_CASE("dropout acts on the update alone and on a tape alone; each pass has its own mask") {
  LoraLinear layer{Linear<double>(40, 3, {.seed = 11}), {.rank = 2, .dropout = 0.5, .seed = 12}};
  seed_update(layer);
  const auto masked = [&](const Vars& v) {
    layer.update().dropout_stream = 9;
    return layer(v[0]);
  };
  const auto report = gradcheck(masked, {random<double>(40, 3, 13)}, parameters(layer));
  INFO(report.where);
  CHECK(report.worst < 2e-9);

  const auto x = random<double>(40, 3, 14);
  layer.update().dropout_stream = 9;
  Tape<double> tape;
  const auto first = layer(tape.input(x)), second = layer(tape.input(x));
  CHECK(layer.update().dropout_stream == 11);
  CHECK(first.value() != second.value());
  const Activation<double> base = layer.base()(x), plain = layer(x);
  CHECK(layer(Var{Activation<double>(x)}).value().isApprox(plain, 1e-14));
  const Activation<double> dropped = dropout_forward(x, 0.5, {layer.update().dropout_seed, 9});
  const Activation<double> expected = base + layer.scale() * (layer.b().value * (layer.a().value * dropped));
  CHECK(first.value().isApprox(expected, 1e-13));

  layer.base().set_trainable(true);  // two operations instead of one, the same mask for both passes
  CHECK(gradcheck(masked, {random<double>(40, 3, 13)}, parameters(layer)).worst < 2e-9);
}

TEST_CASE("the recorded layer keeps X, shared, and A X; when X needs no gradient it is not asked for one") {
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

  LoraLinear<Linear<double, 3, 5>, 1> thin{Linear<double, 3, 5>{}};
  seed_update(thin);
  CHECK(check_layer(thin).worst < 2e-9);
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
