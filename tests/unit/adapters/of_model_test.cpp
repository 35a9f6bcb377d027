#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <lowrank/adapters/of_model.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>

#include <support/temporary.hpp>

using namespace lowrank;

namespace {

template <class Layer>
struct OwnModel {
  std::vector<Layer> layers;
  Layer head;
  LoraLinear<Linear<float, 8, 6>, 2> fixed{Linear<float, 8, 6>()};

  explicit OwnModel(const LoraOptions& options)
      : layers(2, Layer(Linear<float>(12, 8), options)), head(Linear<float>(8, 5), {.rank = 3, .alpha = 1}) {
    fixed.set_scale(4);  // as 8 / 2
    for (auto& layer : layers) layer.b().value.setRandom();
    head.b().value.setRandom();
    fixed.b().value.setRandom();
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "layers", layers, "head", head, "fixed", fixed);
  }
  Activation<float> operator()(const Activation<float>& x) const {
    return head(Activation<float>(layers[0](x) + layers[1](x))) +
           head(Activation<float>(Activation<float>::Ones(8, 1) * fixed(x.topRows(8)).row(0)));
  }
};

template <class Layer>
void check_round_trip(const LoraOptions& options) {
  const ::TemporaryFolder folder;
  const OwnModel<Layer> trained(options);
  peft::save(adapter_of(const_cast<OwnModel<Layer>&>(trained)), folder / "adapter");
  OwnModel<Layer> served({.rank = options.rank, .lora_bias = options.lora_bias, .seed = 5});
  const Activation<float> x = Activation<float>::Random(12, 3);
  REQUIRE(served(x) != trained(x));
  load_adapter(served, peft::load(folder / "adapter"));
  CHECK(served(x).isApprox(trained(x), 1e-6f));
}

}  // namespace

TEST_CASE("a model's low-rank layers go to a PEFT folder by their paths, and back") {
  check_round_trip<LoraLinear<Linear<float>>>({.rank = 2, .alpha = 7});
  check_round_trip<LoraLinear<Linear<float>>>({.rank = 2, .alpha = 7, .use_rslora = true});
}

TEST_CASE("an adapter takes its rank along, and what does not fit is refused and changes nothing") {
  using Layer = LoraLinear<Linear<float>>;
  OwnModel<Layer> small({.rank = 2}), large({.rank = 4});
  const Activation<float> x = Activation<float>::Random(12, 3);
  const Adapter adapter = adapter_of(large);
  CHECK(adapter.config.rank == 2);  // of "fixed", the first by name; the others are exceptions
  CHECK(adapter.layers.at("layers.1").scale == 2);
  load_adapter(small, adapter);
  CHECK(small.layers[0].rank() == 4);
  CHECK(small(x) == large(x));
  const auto before = small(x);
  Adapter lacks = adapter;
  lacks.layers.erase("layers.1");
  CHECK_THROWS_AS(load_adapter(small, lacks), FormatError);
  Adapter more = adapter;
  more.layers["layers.2"] = more.layers.at("layers.1");
  CHECK_THROWS_AS(load_adapter(small, more), FormatError);
  Adapter other = adapter_of(small);
  other.layers.at("head") = other.layers.at("layers.0");
  other.layers.at("layers.0").tensors.at("lora_A.weight") = from_weight("A", Weight<float>::Zero(4, 12));
  CHECK_THROWS_AS(load_adapter(small, other), ShapeError);
  Adapter static_rank = adapter;
  static_rank.layers.at("fixed") = lora_tensors(from_weight("A", Weight<float>::Zero(3, 8)), from_weight("B", Weight<float>::Zero(6, 3)));
  CHECK_THROWS_AS(load_adapter(small, static_rank), ShapeError);
  Adapter with_bias = adapter;
  with_bias.layers.at("head").tensors["lora_B.bias"] = from_weight("b", Weight<float>::Zero(1, 5));
  CHECK_THROWS_AS(load_adapter(small, with_bias), FormatError);
  CHECK(small(x) == before);
  Linear<float> plain(3, 4);
  CHECK_THROWS_AS(adapter_of(plain), ValueError);
  CHECK_THROWS_AS(adapter_of(small.head), ValueError);  // it has no path
}
