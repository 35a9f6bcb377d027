#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/embedding.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/matrix.hpp>

#include "nn_support.hpp"

using namespace lowrank;
using namespace nn_test;

namespace {

LoraWeights<float> random_update(const LoraOptions& options, std::uint64_t seed) {
  auto update = make_lora<float>(64, 48, options);
  fill_normal(update.b.value, 0.2, Random(seed));
  if (!update.bias.empty()) fill_normal(update.bias.value, 1, Random(seed + 1));
  return update;
}

const float sum_tolerance = 256 * std::numeric_limits<float>::epsilon();

}  // namespace

TEST_CASE(
    "ranges of one batch give what each gives alone, forward and backward: LoRA, a bias of B, DoRA, dropout, none, one "
    "twice") {
  Weight<float> w(48, 64);
  fill_normal(w, 0.2, Random(1));
  const AdaptedLinear layer{AnyLinear(AnyMatrix(quantize<Nf4<32>>(w)), Column<float>::LinSpaced(48, -1, 1))};
  auto plain = random_update({.rank = 4}, 2), biased = random_update({.rank = 2, .lora_bias = true}, 3),
       dropped = random_update({.rank = 3, .dropout = 0.5, .seed = 7}, 8);
  DoraWeights<float> dora{random_update({.rank = 3}, 4)}, dropped_dora{random_update({.rank = 2, .dropout = 0.5, .seed = 9}, 10)};
  for (auto* update : {&dora, &dropped_dora}) {
    update->begin(lowrank::detail::layer_view(layer.base));
    update->magnitude.value *= 1.25f;
  }
  const auto each = [&](const auto& f) { f(plain), f(biased), f(dora), f(dropped), f(dropped_dora); };
  const std::vector<UpdateRange> ranges{{0, 5, &plain}, {5, 2, nullptr},   {7, 5, &dropped_dora}, {12, 1, &biased},
                                        {13, 9, &dora}, {22, 4, &dropped}, {26, 6, &plain}};
  const auto x = random_columns<float>(64, 32, 5), g = random_columns<float>(48, 32, 6);
  const auto all_gradients = [&](const auto& sweep) {
    each([](auto& update) {
      update.visit_parameters([](auto& p) { p.gradient().setZero(); });
      update.dropout.stream = 0;  // the same masks
    });
    auto values = sweep();
    each([&](auto& update) { update.visit_parameters([&](auto& p) { values.push_back(p.grad); }); });
    return values;
  };
  const auto together = all_gradients([&] {
    Tape<float> tape;
    const Var<float> input = tape.variable(x);
    AdaptedLinear base = layer;
    const LayerUse use{&base, {}, ranges};
    const Var<float> y = forward_together(std::span(&use, 1), input).front();
    tape.backward(y, g);
    return std::vector<Activation<float>>{y.value(), tape.gradient(input)};
  });
  const auto apart = all_gradients([&] {
    Activation<float> y(48, 32), dx(64, 32);
    for (const auto& [begin, count, update] : ranges) {
      Tape<float> tape;
      AdaptedLinear base = layer;
      const Var<float> input = tape.variable(x.middleCols(begin, count));
      const Var<float> part = base.forward(input, update);
      tape.backward(part, g.middleCols(begin, count));
      y.middleCols(begin, count) = part.value();
      dx.middleCols(begin, count) = tape.gradient(input);
    }
    return std::vector<Activation<float>>{y, dx};
  });
  for (std::size_t i = 0; i < apart.size(); ++i) {
    CAPTURE(i);
    CHECK(together[i].isApprox(apart[i], sum_tolerance));
  }
  // Without a tape nothing is dropped; and with what prepare() left.
  AdaptedLinear base = layer;
  const LayerUse use{&base, {}, ranges};
  const auto run = [&] { return forward_together(std::span(&use, 1), Var<float>(x)).front().value(); };
  const Activation<float> bare = run();
  dora.prepare(lowrank::detail::layer_view(layer.base));
  CHECK(run().isApprox(bare, sum_tolerance));
  for (const auto& [begin, count, update] : ranges)
    CHECK(bare.middleCols(begin, count).isApprox(base.forward(Activation<float>(x.middleCols(begin, count)), update), sum_tolerance));
}

TEST_CASE("ranges outside the batch and updates of another layer are refused") {
  AdaptedLinear layer{AnyLinear(Linear<float>(64, 48))};
  layer.base.set_trainable(false);
  auto update = random_update({.rank = 2}, 1), foreign = make_lora<float>(32, 48, {.rank = 2});
  Tape<float> tape;
  const Var<float> x = tape.variable(random_columns<float>(64, 4, 2));
  const auto with = [&](UpdateRange range) {
    const LayerUse use{&layer, {}, {range}};
    forward_together(std::span(&use, 1), x);
  };
  CHECK_THROWS_AS(with({2, 3, &update}), ShapeError);
  CHECK_THROWS_AS(with({0, 4, &foreign}), ShapeError);
  CHECK_NOTHROW(with({1, 3, &update}));
}

TEST_CASE("a base bias that is trained beside a range's gain gets the gradients of Y") {
  AdaptedLinear layer{AnyLinear(Linear<float>(64, 48, {.bias = true}))};
  layer.base.set_trainable(false);
  layer.base.bias().trainable = true;
  DoraWeights<float> update{random_update({.rank = 2}, 1)};
  update.begin(lowrank::detail::layer_view(layer.base));
  const LayerUse use{&layer, {}, {{0, 2, &update}}};
  Tape<float> tape;
  const auto y = forward_together(std::span(&use, 1), tape.variable(random_columns<float>(64, 4, 2))).front();
  const auto g = random_columns<float>(48, 4, 3);
  tape.backward(y, g);
  CHECK(layer.base.bias().grad.isApprox(g.rowwise().sum(), sum_tolerance));
}

TEST_CASE("an update of a token table adds s B A[:, ids], and repeated ids add their gradients") {
  auto update = make_lora<float>(10, 6, {.rank = 2, .alpha = 3});
  fill_normal(update.b.value, 1, Random(3));
  const std::vector<std::int32_t> ids{4, 9, 4};
  const auto base = random_columns<float>(6, 5, 4), g = random_columns<float>(6, 5, 5);
  Tape<float> tape;
  const Var<float> y = add_embedding_update(tape.variable(base), ids, 1, update);
  Activation<float> expected = base, da = Activation<float>::Zero(2, 10), db = Activation<float>::Zero(6, 2);
  for (Index t = 0; t < 3; ++t) {
    const Index id = ids[static_cast<std::size_t>(t)];
    expected.col(t + 1) += update.scale * update.b.value * update.a.value.col(id);
    da.col(id) += update.scale * update.b.value.transpose() * g.col(t + 1);
    db += update.scale * g.col(t + 1) * update.a.value.col(id).transpose();
  }
  CHECK(y.value().isApprox(expected, sum_tolerance));
  tape.backward(y, g);
  CHECK(update.a.grad.isApprox(da, sum_tolerance));
  CHECK(update.b.grad.isApprox(db, sum_tolerance));
  const std::vector<std::int32_t> outside{10};
  CHECK_THROWS_AS(add_embedding_update(Var<float>(base), outside, 0, update), ValueError);
}
