#include "together.hpp"

using namespace lowrank;
using pins::Method;

TEST_CASE("pinned: layers in double") {
  pins::check_pinned("double", [](pins::Results& results) {
    const auto pin = [&](const std::string& name, auto layer) {
      pins::move_update(layer.update(), 6);
      for (const Index tokens : {1, 9, 130}) pins::pin_layer(results, name + "/t" + std::to_string(tokens), layer, tokens);
    };
    const auto quantized = quantize<Nf4<64>>(pins::drawn_weight(72, 128, 3));
    const LoraOptions options{.rank = 4, .alpha = 6, .lora_bias = true, .seed = 5};
    pin("linear", LoraLinear{Linear<double>(pins::drawn_weight<double>(72, 128, 3), pins::drawn_vector<double>(72, 4)), options});
    pin("nf4", LoraLinear{QuantizedLinear<Nf4<64>, double>(quantized, pins::drawn_vector<double>(72, 4)), options});
    pin("dora", DoraLinear{QuantizedLinear<Nf4<64>, double>(quantized), {.rank = 3, .alpha = 6, .seed = 5}});
  });
}

TEST_CASE("pinned: groups and ranges in double") {
  pins::check_pinned("double_groups", [](pins::Results& results) {
    pins::Together<double> group(Compute::fp32, {Method::lora, Method::none, Method::dora});
    for (const Index tokens : {1, 9, 130})
      pins::pin_forward(results, "together/t" + std::to_string(tokens), group, tokens, pins::together, {0, 1, 2});
    auto& layer = group.layers[0];
    auto lora = pins::drawn_update(layer, Method::biased, 2, 30), dora = pins::drawn_update(layer, Method::dora, 4, 50);
    pins::pin_ranges<double>(results, "ranges", layer, {{0, 5, &lora}, {5, 4, nullptr}, {9, 17, &dora}});
  });
}
