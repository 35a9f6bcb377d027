#include <lowrank/quant/nf4.hpp>

#include "problems.hpp"

using namespace lowrank;

namespace {

/// A layer of the user's own that has what LinearLayer asks for and no source: each output is twice the input it is turned to.
struct Reversed {
  using Scalar = float;
  Index width = 96;

  Index in_features() const { return width; }
  Index out_features() const { return width; }
  Activation<float> product(const Activation<float>& x) const { return 2 * x.colwise().reverse(); }
  Activation<float> transposed_product(const Activation<float>& g) const { return 2 * g.colwise().reverse(); }
  Activation<float> operator()(const Activation<float>& x) const { return product(x); }
  Var<float> operator()(const Var<float>& x) {
    return record(product(x.value()), {x}, [copy = *this](auto& flow) { flow.add(0, copy.transposed_product(flow.gradient())); });
  }
  void set_trainable(bool) {}
  template <class Visitor>
  void visit_parameters(const Visitor&) {}
};

}  // namespace

TEST_CASE("pinned: an update of an updated layer") {
  pins::check_pinned("nested", [](pins::Results& results) {
    const auto pin = [&](const std::string& name, auto base) {
      LoraLinear inner{std::move(base), {.rank = 3, .alpha = 6, .seed = 5}};
      pins::move_update(inner.update(), 6);
      LoraLinear outer{inner, {.rank = 5, .alpha = 4, .seed = 8}};
      pins::move_update(outer.update(), 9);
      outer.base().update().set_trainable(true);  // both are
      for (const Index tokens : {1, 9, 130})
        for (const Compute compute : pins::trained_computes) {
          outer.set_compute(compute);
          const std::string at = name + pins::name_of(compute, tokens);
          pins::clear_gradients(outer.base().update());
          pins::pin_layer(results, at, outer, tokens);
          pins::add_gradients(results, at + "/inner", outer.base().update());
        }
    };
    pin("linear/", Linear<float>(pins::drawn_weight(72, 128, 3), pins::drawn_vector(72, 4)));
    pin("nf4/", QuantizedLinear<Nf4<64>>(quantize<Nf4<64>>(pins::drawn_weight(72, 128, 3))));
  });
}

TEST_CASE("pinned: an update of a layer of the user's own, which has no source") {
  pins::check_pinned("own_layer", [](pins::Results& results) {
    LoraLinear layer{Reversed{}, {.rank = 4, .alpha = 6, .lora_bias = true, .seed = 5}};
    pins::move_update(layer.update(), 6);
    for (const Index tokens : pins::all_tokens) pins::pin_layer(results, "t" + std::to_string(tokens), layer, tokens);
  });
}

TEST_CASE("pinned: an update beside a weight that is trained itself") {
  pins::check_pinned("trained_base", [](pins::Results& results) {
    LoraLinear layer{Linear<float>(pins::drawn_weight(72, 128, 3), pins::drawn_vector(72, 4)), {.rank = 4, .alpha = 6, .seed = 5}};
    pins::move_update(layer.update(), 6);
    layer.base().set_trainable(true);
    for (const Index tokens : {1, 9, 130})
      for (const Compute compute : pins::trained_computes) {
        layer.set_compute(compute);
        pins::pin_layer(results, pins::name_of(compute, tokens), layer, tokens);
      }
  });
}

TEST_CASE("pinned: static sizes, on a tape and by backward(x, g)") {
  pins::check_pinned("static_sizes", [](pins::Results& results) {
    LoraLinear<Linear<float, 64, 48>, 4> layer{
        Linear<float, 64, 48>(Weight<float, 48, 64>(pins::drawn_weight(48, 64, 3)), pins::drawn_vector(48, 4)), {.alpha = 6, .seed = 5}};
    pins::move_update(layer.update(), 6);
    for (const Index tokens : {1, 8, 33}) pins::pin_layer(results, "t" + std::to_string(tokens), layer, tokens);
    const Activation<float, 64, 8> x = pins::drawn_columns(64, 8, 1);
    const Activation<float, 48, 8> g = pins::drawn_columns(48, 8, 2);
    pins::clear_gradients(layer.update());
    results.add("of_eight/y", layer(x));
    results.add("of_eight/dx", layer.backward(x, g));
    pins::add_gradients(results, "of_eight", layer.update());
  });
}
