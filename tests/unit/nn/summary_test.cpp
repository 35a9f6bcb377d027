#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/embedding.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/summary.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

namespace {

struct Summarized {
  std::vector<LoraLinear<AnyLinear>> layers{
      LoraLinear{AnyLinear(QuantizedLinear{quantize<Nf4<64>>(Weight<float>::Random(48, 64))}), {.rank = 4, .lora_bias = true}}};
  Parameter<float> norm{"", Weight<float>::Ones(48, 1)};
  Linear<float> head{48, 5, {.bias = true}};

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "layers", layers, "norm", norm, "head", head);
  }
};

}  // namespace

TEST_CASE("a model's summary has a line a layer and a total, aligned") {
  Summarized model;
  model.norm.trainable = false;
  CHECK(summary(model) ==
        "name      shape     format        trainable    of   bytes\n"
        "layers.0  [48, 64]  nf4 + rank 4        496  3568  3.7 kB\n"
        "norm      [48, 1]   fp32                  0    48   192 B\n"
        "head      [5, 48]   fp32                245   245   980 B\n"
        "total                                   741  3861  4.9 kB\n");
  LoraLinear nested{LoraLinear{Linear<float>(8, 6), {.rank = 2}}, {.rank = 1}};
  const std::string one = summary(nested);
  CHECK(std::count(one.begin(), one.end(), '\n') == 3);
}
