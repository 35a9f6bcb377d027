#include <doctest/doctest.h>

#include <memory>
#include <utility>
#include <vector>

#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

namespace {

using X = Activation<float>;

/// backward() after the layer was recorded and then destroyed, moved away, or had its numbers assigned.
template <class Layer>
void check_lifetime(const Layer& made) {
  const X x = X::Ones(made.in_features(), 3);
  {
    Tape tape;
    auto layer = std::make_unique<Layer>(made);
    const Var<float> in = tape.variable(x), loss = sum((*layer)(in));
    layer.reset();
    CHECK_THROWS_AS(tape.backward(loss), Error);
  }
  {
    Tape tape;
    Layer layer = made;
    const Var<float> in = tape.variable(x), loss = sum(layer(in));
    Layer moved = std::move(layer);
    try {
      tape.backward(loss);
      CHECK(tape.gradient(in).isApprox(moved.transposed_product(X(X::Ones(made.out_features(), 3)))));
    } catch (const Error&) {  // either is right
    }
    const Var<float> again = tape.variable(x), second = sum(moved(again));
    tape.backward(second);  // the tape goes on
    CHECK(tape.gradient(again).isApprox(moved.transposed_product(X(X::Ones(made.out_features(), 3)))));
  }
}

}  // namespace

TEST_CASE("a layer that ends or moves between forward and backward is noticed") {
  Linear<float> linear(64, 6);
  check_lifetime(linear);
  linear.set_trainable(false);
  check_lifetime(linear);
  check_lifetime(Linear<float, 8, 6>());
  check_lifetime(LoraLinear{Linear<float>(64, 6), {.rank = 2}});
  check_lifetime(LoraLinear<Linear<float, 8, 6>, 2>{Linear<float, 8, 6>()});
  check_lifetime(DoraLinear{Linear<float>(64, 6), {.rank = 2}});
  const QuantizedLinear quantized{quantize<Nf4<64>>(Weight<float>::Random(6, 64))};
  check_lifetime(quantized);
  check_lifetime(LoraLinear{quantized, {.rank = 2}});
  check_lifetime(LoraLinear{LoraLinear{quantized, {.rank = 2}}, {.rank = 1}});
  check_lifetime(AnyLinear(quantized));
}

TEST_CASE("an update that ends or whose numbers are assigned between forward and backward is noticed") {
  AdaptedLinear layer(QuantizedLinear{quantize<Nf4<64>>(Weight<float>::Random(6, 64))});
  const auto make = [] { return std::make_unique<LoraWeights<float>>(make_lora<float>(64, 6, {.rank = 2})); };
  Tape tape;
  const Var<float> x = tape.variable(X::Ones(64, 3));
  auto update = make();
  const Var<float> loss = sum(layer.forward(x, update.get()));
  update.reset();
  CHECK_THROWS_AS(tape.backward(loss), Error);
  auto first = make(), second = make();
  const std::vector<LayerUse> uses{{&layer, first.get()}, {&layer, second.get()}};
  const auto y = forward_together<float>(uses, tape.variable(X::Ones(64, 3)));
  second.reset();
  CHECK_THROWS_AS(tape.backward(sum(y[0])), Error);
  const Var<float> assigned = sum(layer.forward(tape.variable(X::Ones(64, 3)), first.get()));
  first->a.value = Weight<float>(Weight<float>::Zero(2, 64));  // other memory
  CHECK_THROWS_AS(tape.backward(assigned), Error);
}

TEST_CASE("other operations of a parameter notice that it has ended") {
  Tape tape;
  auto weight = std::make_unique<Parameter<float>>("norm", Weight<float>::Ones(4, 1));
  auto head = std::make_unique<Parameter<float>>("head", Weight<float>::Ones(5, 4));
  const std::vector<std::int32_t> targets{1, 2}, ids{0, 3};
  Var<float> loss = sum(rms_norm(tape.variable(X::Ones(4, 2)), *weight, 1e-5f));
  weight.reset();
  CHECK_THROWS_AS(tape.backward(loss), Error);
  loss = linear_cross_entropy(*head, tape.variable(X::Ones(4, 2)), targets);
  head.reset();
  CHECK_THROWS_AS(tape.backward(loss), Error);
  auto table = std::make_unique<Embedding<float>>(5, 4);
  loss = sum((*table)(tape, ids));
  table.reset();
  CHECK_THROWS_AS(tape.backward(loss), Error);
}

TEST_CASE("Compute::int8 records no gradient") {
  LoraLinear layer{QuantizedLinear{quantize<Nf4<64>>(Weight<float>::Random(64, 64))}, {.rank = 2}};
  layer.set_compute(Compute::int8);
  Tape tape;
  CHECK_THROWS_AS(layer(tape.input(X::Ones(64, 2))), ValueError);  // A and B are trained
  CHECK_THROWS_AS(layer(tape.variable(X::Ones(64, 2))), ValueError);
  layer.set_trainable(false);
  CHECK(layer(tape.input(X::Ones(64, 2))).value() == layer(X::Ones(64, 2)));  // inference on a tape
  CHECK_THROWS_AS(layer(tape.variable(X::Ones(64, 2))), ValueError);
  Linear<float> dense(64, 8);
  dense.set_compute(Compute::int8);
  CHECK_THROWS_AS(dense(tape.input(X::Ones(64, 2))), ValueError);
  CHECK_THROWS_AS(dense.transposed_product(X(X::Ones(8, 2))), ValueError);
  Parameter<float> head("head", Weight<float>::Ones(5, 64));
  const std::vector<std::int32_t> targets{1, 2};
  CHECK_THROWS_AS(linear_cross_entropy(head, tape.input(X::Ones(64, 2)), targets, Compute::int8), ValueError);
}
