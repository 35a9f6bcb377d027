#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant/any_matrix.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/ggml_formats.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>

#include "../../support/golden.hpp"
#include "nn_support.hpp"

using namespace lowrank;
using namespace nn_test;

namespace {

StoredMatrix<BFloat16> as_bfloat16(const Weight<float>& w) {
  Buffer buffer = Buffer::allocate(static_cast<std::size_t>(w.size()) * 2);
  for (Index i = 0; i < w.size(); ++i) buffer.mutable_as<BFloat16>()[i] = BFloat16(w.data()[i]);
  return {w.rows(), w.cols(), buffer};
}

// One layer of each kind with the weight that it multiplies with.
struct Case {
  AnyLinear layer;
  Weight<float> weight;
};

std::vector<Case> cases() {
  const Weight<float> w = random<float>(48, 64, 1);
  const Column<float> bias = random<float>(48, 1, 2);
  const auto nf4 = quantize<Nf4<64, DoubleQuant>>(w);
  const auto q4_1 = quantize<Q4_1>(w);
  const auto bf16 = as_bfloat16(w);
  Weight<float> rounded(48, 64);
  bf16.decode(0, 48, 0, 64, rounded.data(), 64);
  return {{Linear{w, bias}, w},
          {FrozenLinear<BFloat16>{bf16, bias}, rounded},
          {QuantizedLinear{nf4, bias}, dequantize(nf4)},
          {QuantizedLinear{q4_1, bias}, dequantize(q4_1)}};
}

/// A format of ggml as a frozen base, of random blocks, against its weight in fp32.
template <class Format>
void check_frozen(const test::GoldenFile& golden) {
  CAPTURE(std::string(Format::name));
  const auto bytes = golden.bytes(std::string(Format::name) + ".bytes");
  Buffer blocks = Buffer::allocate(bytes.size());
  std::copy(bytes.begin(), bytes.end(), blocks.mutable_as<std::uint8_t>());
  const QuantizedMatrix<Format> q(4, 512, blocks);
  const Weight<float> w = dequantize(q);
  const AnyLinear layer{AnyMatrix(q), Column<float>()};
  const auto within = [](const auto& value, const auto& expected) { return (value - expected).norm() <= 1e-5f * expected.norm(); };
  for (const Index tokens : {1, 3, 40}) {
    const auto x = random<float>(512, tokens, 1), g = random<float>(4, tokens, 2);
    CHECK(within(layer.product(x), w * x));
    CHECK(within(layer.transposed_product(g), w.transpose() * g));
  }
  CHECK(layer.embed(std::vector<std::int32_t>{3, 0}).col(0) == w.row(3).transpose());
}

const float product_tolerance = 64 * std::numeric_limits<float>::epsilon();

}  // namespace

static_assert(HasSource<AnyLinear>);

TEST_CASE("AnyLinear gives what the layer that it holds gives") {
  const auto x = random<float>(64, 5, 3);
  for (auto& [layer, w] : cases()) {
    const Column<float> bias = layer.bias().value;
    const Activation<float> expected = (w * x).colwise() + bias;
    CHECK(layer(x).isApprox(expected, product_tolerance));
    CHECK(layer(Var{Activation<float>(x)}).value().isApprox(expected, product_tolerance));
    CHECK(layer.product(x).isApprox(w * x, product_tolerance));
    CHECK(layer.transposed_product(expected).isApprox(w.transpose() * expected, product_tolerance));
    const std::vector<std::int32_t> ids{7, 0, 7};
    CHECK(layer.embed(ids).col(2) == w.row(7).transpose());
    CHECK(layer.in_features() == 64);
    CHECK(layer.out_features() == 48);
  }
  CHECK(AnyLinear().out_features() == 0);
}

TEST_CASE("every format of ggml is a frozen base, forward and backward") {
  const test::GoldenFile golden(LOWRANK_GOLDEN_DIR "/gguf_blocks.safetensors");
  std::apply([&](auto... formats) { (check_frozen<decltype(formats)>(golden), ...); }, GgmlFormats{});
}

TEST_CASE("only a dense Linear has a trainable weight") {
  for (auto& [layer, w] : cases()) {
    layer.set_trainable(true);
    CHECK(layer.weight_trainable() == (layer.get_if<Linear<float>>() != nullptr));
    CHECK(parameters(layer).size() == (layer.weight_trainable() ? 2u : 1u));  // the bias counts
  }
}

TEST_CASE("AdaptedLinear runs bare or with an update that is exchanged by pointer") {
  const auto x = random<float>(64, 5, 4), g = random<float>(48, 5, 5);
  LoraWeights<float> first = make_lora<float>(64, 48, {.rank = 3, .alpha = 6, .seed = 6}), second = first;
  fill_uniform(first.b.value, 1.0, Random(7));
  fill_uniform(second.b.value, 1.0, Random(8));
  for (auto& [layer, w] : cases()) {
    AdaptedLinear adapted{layer};
    adapted.base.set_trainable(false);
    CHECK(adapted.forward(x) == layer(x));
    for (LoraWeights<float>* update : {&first, &second}) {
      const Weight<float> full = w + update->scale * update->b.value * update->a.value;
      const Activation<float> expected = (full * x).colwise() + Column<float>(layer.bias().value);
      CHECK(adapted.forward(x, update).isApprox(expected, product_tolerance));
      update->a.gradient().setZero();
      update->b.gradient().setZero();
      Tape tape;
      Var v = tape.variable(x);
      Var y = adapted.forward(v, update);
      CHECK(y.value().isApprox(expected, product_tolerance));
      tape.backward(y, g);
      CHECK(tape.gradient(v).isApprox(full.transpose() * g, product_tolerance));
      CHECK(update->b.grad.isApprox(update->scale * g * (update->a.value * x).transpose(), product_tolerance));
    }
  }
}

TEST_CASE("one table as embedding and head, trained as both") {
  AnyLinear table{Linear<float>{Weight<float>(random<float>(6, 4, 9))}};
  const std::vector<std::int32_t> ids{1, 5, 1}, targets{5, 1, 0};
  Tape tape;
  const auto loss = [&] { return linear_cross_entropy(table, table.embed(&tape, ids), targets); };
  const auto references = parameters(table);
  REQUIRE(references.size() == 1);
  tape.backward(loss());
  const float step = 1e-2f;
  for (const std::size_t i : {4u, 7u, 20u}) {
    float& number = references[0].value()[i];
    const float saved = number;
    number = saved + step;
    const float above = loss().item();
    number = saved - step;
    const float below = loss().item();
    number = saved;
    CHECK(std::abs(references[0].grad()[i] - (above - below) / (2 * step)) < 2e-4f);  // step² plus rounding over the step
  }
  const std::vector<long> wide(targets.begin(), targets.end());
  CHECK(linear_cross_entropy(table, table.embed(&tape, ids), wide).item() == loss().item());
  table.set_trainable(false);
  tape.clear();
  CHECK_FALSE(loss().requires_grad());
}
