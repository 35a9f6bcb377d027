#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/state.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

namespace {

using Adapter = LoraLinear<QuantizedLinear<Nf4<64>>>;

struct Block {
  Adapter query{QuantizedLinear{quantize<Nf4<64>>(Weight<float>::Random(8, 64))}, {.rank = 2, .dropout = 0.5, .lora_bias = true}};
  std::optional<Linear<float>> gate;
  std::unique_ptr<Linear<float>> own = std::make_unique<Linear<float>>(2, 3, LinearOptions{.bias = true});

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "query", query, "gate", gate, "own", own);
  }
};

struct Model {
  std::vector<Block> layers = std::vector<Block>(2);
  Parameter<float> norm{"", Weight<float>::Ones(8, 1)};
  LoraLinear<Linear<float>> head{Linear<float>(8, 4), {.rank = 1}};

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "layers", layers, "norm", norm, "head", head);
  }
};

/// A model that names nothing, and has no Scalar.
struct Plain {
  Linear<float> first{4, 4}, second{4, 4};
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    first.visit_parameters(visitor);
    second.visit_parameters(visitor);
    first.visit_parameters(visitor);  // tied
  }
};

std::vector<std::string> names_of(const std::vector<StateArray>& arrays) {
  std::vector<std::string> names;
  for (const auto& array : arrays) names.push_back(array.name);
  return names;
}

}  // namespace

TEST_CASE("a model's parameters have paths") {
  Model model;
  const auto names = names_of(state(model));
  const std::vector<std::string> block{"query.lora_A.weight",  "query.lora_B.weight", "query.lora_B.bias", "query.dropout.seed",
                                       "query.dropout.stream", "own.weight",          "own.bias"};
  std::vector<std::string> expected;
  for (const char* layer : {"layers.0.", "layers.1."})
    for (const auto& name : block) expected.push_back(layer + name);
  expected.insert(expected.end(), {"norm", "head.base_layer.weight", "head.lora_A.weight", "head.lora_B.weight"});
  CHECK(names == expected);
  const auto trained = names_of(state(model, {.frozen = false}));
  CHECK(trained.size() == expected.size() - 1);  // head.base_layer.weight is frozen
  CHECK(parameters(model)[0].name == "layers.0.query.lora_A.weight");
  CHECK(state(model)[2].shape == std::vector<Index>{8});
  CHECK(state(model)[4].numbers<std::uint64_t>()[0] == 0);
  CHECK_THROWS_AS(state(model)[4].numbers<float>(), ValueError);
}

TEST_CASE("names that are taken are counted, and a parameter is stepped once however often it is shown") {
  Plain model;
  CHECK(names_of(state(model)) == std::vector<std::string>{"weight", "weight.1", "weight.2"});
  CHECK(parameters(model).size() == 2);
  detail::DistinctNames distinct;
  CHECK(distinct("a.1") == "a.1");
  CHECK(distinct("a") == "a");
  CHECK(distinct("a") == "a.1.1");
}

TEST_CASE("eval() switches dropout off on a tape, train() on again, and set_compute() reaches every layer") {
  Model model;
  auto& layer = model.layers[0].query;
  layer.b().value.setRandom();
  const Activation<float> x = Activation<float>::Random(64, 5), y = layer(x);
  Tape tape;
  CHECK_FALSE(layer(tape.input(x)).value().isApprox(y));
  eval(model);
  CHECK(layer(tape.input(x)).value().isApprox(y));
  train(model);
  CHECK_FALSE(layer(tape.input(x)).value().isApprox(y));
  set_compute(model, Compute::bf16);
  CHECK(model.layers[1].query.compute() == Compute::bf16);
  CHECK(model.layers[1].own->compute() == Compute::bf16);
  CHECK(model.head.base().compute() == Compute::bf16);
}
