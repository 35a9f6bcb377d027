#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/optim/sgd.hpp>

using namespace lowrank;

namespace {

using Small = LoraLinear<Linear<float, 8, 6>, 2>;

struct Trainer {
  Small layer{Linear<float, 8, 6>()};
  AdamW<float> optimizer{parameters(layer), {.learning_rate = 0.1, .weight_decay = 0}};
};

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("an optimizer steps a parameter whose value was assigned") {
  LoraLinear layer{Linear<float>(64, 48), {.rank = 4}};
  Sgd optimizer{parameters(layer), {.learning_rate = 1}};
  layer.b().value = Weight<float>::Random(48, 4);  // other memory
  layer.b().grad = Weight<float>::Ones(48, 4);
  const Weight<float> before = layer.b().value;
  optimizer.step();
  CHECK(layer.b().value == before - Weight<float>::Ones(48, 4));
  optimizer.zero_grad();
  CHECK(layer.b().grad.isZero(0));
  layer.b().grad.resize(0, 0);
  optimizer.step();  // no gradient is a gradient of zero
  CHECK(layer.b().value == before - Weight<float>::Ones(48, 4));
}

TEST_CASE("an optimizer follows a layer of static sizes that moves with it") {
  auto first = std::make_unique<Trainer>();
  Trainer second = std::move(*first);
  first.reset();
  const auto before = second.layer.b().value;
  second.layer.b().gradient().setOnes();
  second.optimizer.step();
  CHECK((before - second.layer.b().value).isApproxToConstant(0.1f));
  Trainer third;
  third = std::move(second);
  third.layer.b().gradient().setOnes();
  third.optimizer.step();
  CHECK((before - third.layer.b().value).isApproxToConstant(0.2f, 1e-4f));
}

TEST_CASE("a vector of layers may grow beneath an optimizer") {
  std::vector<Small> layers(2, Small{Linear<float, 8, 6>()});
  Sgd optimizer{parameters(layers), {.learning_rate = 1}};
  layers.reserve(layers.capacity() + 1);
  for (auto& layer : layers) layer.b().gradient().setOnes();
  optimizer.step();
  for (auto& layer : layers) CHECK(layer.b().value.isConstant(-1));
}

TEST_CASE("an optimizer belongs to its model: it is moved, not copied") {
  static_assert(!std::is_copy_constructible_v<AdamW<float>> && !std::is_copy_assignable_v<Trainer>);
  static_assert(std::is_nothrow_move_constructible_v<Small>);
}

TEST_CASE("a step after a parameter has ended or changed its shape is an error that names it, and changes nothing") {
  LoraLinear layer{Linear<float>(8, 6), {.rank = 2}};
  auto gone = std::make_unique<LoraLinear<Linear<float>>>(layer);
  Sgd optimizer{parameters(layer), {.learning_rate = 1}};
  optimizer.add_group(parameters(*gone), {});
  layer.b().gradient().setOnes();
  gone.reset();
  CHECK(message_of([&] { optimizer.step(); }).find("'lora_A.weight' is gone") != std::string::npos);
  CHECK(layer.b().value.isZero(0));
  CHECK(optimizer.steps() == 0);
  Sgd other{parameters(layer), {.learning_rate = 1}};
  layer.a().value = Weight<float>::Zero(3, 8);
  CHECK_THROWS_AS(other.step(), ShapeError);
  CHECK(message_of([&] { other.step(); }).find("'lora_A.weight' is [3, 8] but was [2, 8]") != std::string::npos);
}

TEST_CASE("a parameter is given to an optimizer once, and steps count from 0") {
  LoraLinear layer{Linear<float>(8, 6), {.rank = 2}};
  AdamW optimizer{parameters(layer), {.learning_rate = 0.1, .weight_decay = 0}};
  CHECK_THROWS_AS(optimizer.add_group(parameters(layer), {}), ValueError);
  CHECK(optimizer.groups() == 1);
  auto twice = parameters(layer);
  twice.push_back(twice.front());
  CHECK_THROWS_AS((AdamW{twice, {}}), ValueError);
  layer.b().gradient().setOnes();
  optimizer.step();
  CHECK(layer.b().value(0, 0) == doctest::Approx(-0.1));
  CHECK_THROWS_AS(optimizer.set_steps(-1), ValueError);
  CHECK_THROWS_AS(optimizer.set_learning_rate(-1), ValueError);
  CHECK_THROWS_AS(optimizer.set_learning_rate_share(std::numeric_limits<double>::quiet_NaN()), ValueError);
  CHECK(optimizer.steps() == 1);
}
