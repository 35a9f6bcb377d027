#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>

#include "nn_support.hpp"

using namespace lowrank;
using namespace nn_test;

namespace {

using Vars = std::vector<Var<double>>;

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

  LoraLinear<Linear<double, 3, 5>, 1> thin{Linear<double, 3, 5>{}};
  seed_update(thin);
  CHECK(check_layer(thin).worst < 2e-9);
}

TEST_CASE("dropout acts on the update alone and on a tape alone, each pass has its own mask") {
  LoraLinear layer{Linear<double>(40, 3, {.seed = 11}), {.rank = 2, .dropout = 0.5, .seed = 12}};
  seed_update(layer);
  const auto masked = [&](const Vars& v) {
    layer.update().dropout.stream = 9;
    return layer(v[0]);
  };
  const auto report = gradcheck(masked, {random<double>(40, 3, 13)}, parameters(layer));
  INFO(report.where);
  CHECK(report.worst < 2e-9);

  const auto x = random<double>(40, 3, 14);
  layer.update().dropout.stream = 9;
  Tape<double> tape;
  const auto first = layer(tape.input(x)), second = layer(tape.input(x));
  CHECK(layer.update().dropout.stream == 11);
  CHECK(first.value() != second.value());
  const Activation<double> base = layer.base()(x), plain = layer(x);
  CHECK(layer(Var{Activation<double>(x)}).value().isApprox(plain, 1e-14));
  const Activation<double> dropped = dropout_forward(x, 0.5, {layer.update().dropout.seed, 9});
  const Activation<double> expected = base + layer.scale() * (layer.b().value * (layer.a().value * dropped));
  CHECK(first.value().isApprox(expected, 1e-13));

  layer.base().set_trainable(true);  // two operations instead of one, the same mask for both passes
  CHECK(gradcheck(masked, {random<double>(40, 3, 13)}, parameters(layer)).worst < 2e-9);
}
