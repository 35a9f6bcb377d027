#include "together.hpp"

using namespace lowrank;
using pins::Method;

namespace {

constexpr LoraOptions dropped{.rank = 4, .alpha = 6, .dropout = 0.25, .seed = 5};

/// A layer with the first masks of its stream, the number of which goes on from call to call.
template <class Layer>
void pin_dropped(pins::Results& results, const std::string& name, Layer layer) {
  pins::move_update(layer.update(), 6);
  for (const Index tokens : {1, 9, 130})
    for (const Compute compute : pins::trained_computes) {
      layer.set_compute(compute);
      pins::pin_taped(results, name + "/" + pins::name_of(compute, tokens), layer, tokens);
    }
}

}  // namespace

TEST_CASE("pinned: dropout of layers that own their update") {
  pins::check_pinned("dropout/layers", [](pins::Results& results) {
    const auto w = pins::drawn_weight(72, 128, 3);
    const auto bias = pins::drawn_vector(72, 4);
    const QuantizedLinear<Nf4<64>> nf4(quantize<Nf4<64>>(w), bias);
    pin_dropped(results, "lora/linear", LoraLinear{Linear<float>(w, bias), dropped});
    pin_dropped(results, "lora/nf4", LoraLinear{nf4, dropped});
    pin_dropped(results, "dora/linear", DoraLinear{Linear<float>(w, bias), dropped});
    pin_dropped(results, "dora/nf4", DoraLinear{nf4, dropped});
  });
}

TEST_CASE("pinned: dropout in groups") {
  pins::check_pinned("dropout/groups", [](pins::Results& results) {
    for (const Compute compute : pins::trained_computes) {
      pins::Together<float> lora(compute, {Method::lora, Method::none, Method::biased}, 0.25),
          dora(compute, {Method::dora, Method::lora, Method::none}, 0.25);
      for (const Index tokens : {1, 9, 130}) {
        pins::pin_forward(results, "lora/" + pins::name_of(compute, tokens), lora, tokens, pins::together, {0, 1, 2});
        pins::pin_forward(results, "dora/" + pins::name_of(compute, tokens), dora, tokens, pins::together, {0, 1, 2});
      }
    }
  });
}

TEST_CASE("pinned: dropout in ranges") {
  pins::check_pinned("dropout/ranges", [](pins::Results& results) {
    for (const Compute compute : pins::trained_computes) {
      auto layer = std::move(pins::drawn_layers<float>(compute)[0]);
      auto lora = pins::drawn_update(layer, Method::lora, 2, 30, 0.25), dora = pins::drawn_update(layer, Method::dora, 4, 50, 0.25);
      pins::pin_ranges<float>(results, pins::name_of(compute), layer, {{0, 5, &lora}, {5, 4, nullptr}, {9, 17, &dora}, {26, 6, &lora}});
    }
  });
}
