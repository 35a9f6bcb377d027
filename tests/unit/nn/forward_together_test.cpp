#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include <lowrank/nn/forward_together.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/quant.hpp>

#include "nn_support.hpp"

namespace {

using namespace lowrank;
using namespace nn_test;

Weight<float> random_weight(Index rows, Index cols, std::uint64_t seed) {
  Weight<float> w(rows, cols);
  fill_normal(w, 0.1, Random(seed, 1));
  return w;
}

LoraWeights<float> random_update(Index in, Index out, Index rank, std::uint64_t seed) {
  auto update = make_lora<float>(in, out, {.rank = rank, .alpha = 2.0 * static_cast<double>(rank), .seed = seed});
  fill_normal(update.b.value, 0.1, Random(seed, 2));
  return update;
}

/// Three layers of one x: NF4 with an update, Q4_1 with another rank, dense and frozen without.
struct Group {
  static constexpr Index in = 96;
  std::vector<AdaptedLinear> layers;
  std::vector<LoraWeights<float>> updates;
  std::vector<LayerUse> uses;

  explicit Group(Compute compute) {
    layers.emplace_back(AnyLinear(AnyMatrix(quantize<Nf4<32>>(random_weight(70, in, 1))), Column<float>::LinSpaced(70, -1, 1)));
    layers.emplace_back(AnyLinear(AnyMatrix(quantize<Q4_1>(random_weight(33, in, 2)))));
    layers.emplace_back(AnyLinear(Linear<float>(random_weight(17, in, 3))));
    layers.back().base.set_trainable(false);
    for (auto& layer : layers) layer.base.set_compute(compute);
    updates.push_back(random_update(in, 70, 5, 4));
    updates.push_back(random_update(in, 33, 3, 5));
    uses = {{&layers[0], &updates[0]}, {&layers[1], &updates[1]}, {&layers[2], nullptr}};
  }
};

double distance(const auto& a, const auto& b) { return (a - b).norm() / (1e-30 + b.norm()); }

/// Loss Σ ⟨Gᵢ, Yᵢ⟩ through a tape, all together or layer by layer; gives dX.
Activation<float> sweep(Group& group, const Activation<float>& x, bool together, std::size_t used, std::vector<Activation<float>>& y) {
  Tape<float> tape;
  const Var<float> input = tape.variable(x);
  std::vector<Var<float>> outputs;
  if (together)
    outputs = forward_together(group.uses, input);
  else
    for (const LayerUse& use : group.uses) outputs.push_back(use.layer->forward(input, use.update));
  Var<float> total;
  for (std::size_t i = 0; i < used; ++i) {
    y.push_back(outputs[i].value());
    const Var<float> part = mse(outputs[i], random_columns<float>(outputs[i].rows(), x.cols(), 10 + i));
    total = i == 0 ? part : total + part;
  }
  tape.backward(total);
  return tape.gradient(input);
}

}  // namespace

TEST_CASE("forward_together gives what layer by layer gives, forward and backward") {
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    for (const Index tokens : {1, 9, 40}) {
      for (const std::size_t used : {3u, 2u}) {  // an output that the loss does not depend on
        CAPTURE(static_cast<int>(compute));
        CAPTURE(tokens);
        CAPTURE(used);
        const auto x = random_columns<float>(Group::in, tokens, 7);
        Group together(compute), apart(compute);
        std::vector<Activation<float>> y, expected_y;
        const auto dx = sweep(together, x, true, used, y), expected = sweep(apart, x, false, used, expected_y);
        // bf16 rounds the sum of gradients' parts at other places.
        const double tolerance = compute == Compute::fp32 ? 64 * std::numeric_limits<float>::epsilon() : 1.0 / 128;
        for (std::size_t i = 0; i < used; ++i) CHECK(distance(y[i], expected_y[i]) < tolerance);
        CHECK(distance(dx, expected) < tolerance);
        for (std::size_t i = 0; i < 2; ++i) {
          CHECK(distance(together.updates[i].a.grad, apart.updates[i].a.grad) < tolerance);
          CHECK(distance(together.updates[i].b.grad, apart.updates[i].b.grad) < tolerance);
        }
      }
    }
  }
}

TEST_CASE("forward_together without a tape, for few and many tokens") {
  for (const Index tokens : {1, 8, 9, 64}) {
    Group group(Compute::fp32);
    const auto x = random_columns<float>(Group::in, tokens, 8);
    const auto outputs = forward_together(group.uses, Var<float>(x));
    for (std::size_t i = 0; i < 3; ++i) {
      const Activation<float> expected = group.layers[i].forward(x, group.uses[i].update);
      CHECK(distance(outputs[i].value(), expected) < 64 * std::numeric_limits<float>::epsilon());
    }
  }
}

TEST_CASE("forward_together refuses an x of another width, naming both") {
  Group group(Compute::fp32);
  Tape<float> tape;
  CHECK_THROWS_AS(forward_together(group.uses, tape.variable(random_columns<float>(Group::in - 1, 20, 9))), ShapeError);
}

TEST_CASE("with BatchInvariant a token of a group has the same bits alone and among others") {
  const BatchInvariant guard;
  const auto x = random_columns<float>(Group::in, 21, 7);
  for (const Compute compute : {Compute::fp32, Compute::bf16, Compute::int8})
    for (const bool prepared : {false, true}) {
      CAPTURE(static_cast<int>(compute));
      CAPTURE(prepared);
      Group group(compute);
      for (auto& update : group.updates)
        if (prepared) update.round();
      const auto all = forward_together(group.uses, Var<float>(x));
      for (const Index count : {1, 3, 8, 9})
        for (const Index begin : {Index{0}, 21 - count}) {
          const auto some = forward_together(group.uses, Var<float>(Activation<float>(x.middleCols(begin, count))));
          for (std::size_t i = 0; i < all.size(); ++i) CHECK(some[i].value() == all[i].value().middleCols(begin, count));
        }
    }
}
