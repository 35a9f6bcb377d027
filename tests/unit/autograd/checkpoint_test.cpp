#include <doctest/doctest.h>

#include <lowrank/autograd.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant.hpp>

using namespace lowrank;

namespace {

// Two low-rank layers with a norm and a gate between them, as a block of a model.
template <class S>
struct Block {
  LoraLinear<Linear<S>> up, down;
  Parameter<S> norm;

  explicit Block(double dropout)
      : up(Linear<S>(6, 10, {.seed = 1}), {.rank = 2, .alpha = 4, .dropout = dropout, .seed = 2}),
        down(Linear<S>(10, 6, {.seed = 3}), {.rank = 2, .alpha = 4, .dropout = dropout, .seed = 4}) {
    norm.value = Weight<S>::Constant(6, 1, S(1.5));
    fill_normal(up.b().value, 1.0, Random(5));
    fill_normal(down.b().value, 1.0, Random(6));
  }
  Var<S> operator()(Var<S> x) {
    const auto y = up(rms_norm(x, norm, S(1e-5)));
    return down(swiglu(y, y)) + x;
  }
  std::vector<Weight<S>> gradients() const { return {up.a().grad, up.b().grad, down.a().grad, down.b().grad, norm.grad}; }
};

template <class S>
void check_equal_gradients(double dropout) {
  const Activation<S> x = Activation<S>::Random(6, 5), target = Activation<S>::Random(6, 5);
  Block<S> plain(dropout), recomputed(dropout);
  Tape<S> tape;
  const auto leaf = tape.variable(x);
  tape.backward(mse(plain(plain(leaf)), target));
  const Activation<S> dx = tape.gradient(leaf);
  const auto again = tape.variable(x);
  const auto block = [&](Var<S> in) { return recomputed(std::move(in)); };
  tape.backward(mse(checkpoint(checkpoint(again, block), block), target));
  CHECK(tape.gradient(again).isApprox(dx));
  for (std::size_t i = 0; i < 5; ++i) CHECK(recomputed.gradients()[i].isApprox(plain.gradients()[i]));
}

}  // namespace

TEST_CASE("checkpoint gives the gradients of the function itself") { check_equal_gradients<double>(0); }

TEST_CASE("checkpoint repeats the dropout masks and moves their counter once") {
  check_equal_gradients<double>(0.3);
  Block<double> block(0.3);
  Tape<double> tape;
  tape.backward(sum(checkpoint(tape.variable(Activation<double>::Random(6, 5)), [&](Var<double> in) { return block(std::move(in)); })));
  CHECK(block.up.update().dropout.stream == 1);
}

TEST_CASE("checkpoint without a tape, and of a function that trains nothing, is the function") {
  Block<float> block(0);
  const Activation<float> x = Activation<float>::Random(6, 3);
  const auto f = [&](Var<float> in) { return block(std::move(in)); };
  CHECK(checkpoint(Var<float>(x), f).value() == block(Var<float>(x)).value());
  Tape<float> tape;
  const auto twice = [](Var<float> in) { return scale(std::move(in), 2); };
  CHECK_FALSE(checkpoint(tape.input(x), twice).requires_grad());
}

TEST_CASE("values of bf16 products are kept rounded, restored ones with the same bits") {
  const Weight<float> w = Weight<float>::Random(8, 8);
  LoraLinear layer{QuantizedLinear{quantize<Nf4<64>>(w)}, {.rank = 2, .alpha = 4}};
  layer.b().value.setRandom();
  const Activation<float> x = Activation<float>::Random(8, 4);
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    layer.set_compute(compute);
    Tape<float> tape;
    Var<float> y = layer(tape.input(x));
    const Activation<float> value = y.value();
    const auto kept = y.kept();
    y = Var<float>();
    const Activation<float> back = *kept.get();
    if (compute == Compute::fp32) {
      CHECK(back == value);
    } else {
      CHECK(back == value.unaryExpr([](float v) { return static_cast<float>(BFloat16(v)); }));
    }
  }
}
