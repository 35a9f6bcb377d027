#pragma once

#include <string>
#include <vector>

#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/quant/any_matrix.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>
#include <lowrank/update/set.hpp>

#include "../nn/nn_support.hpp"

// Every registered method, with its variants, over two layers of each kind of base.

namespace method_cases {

using namespace lowrank;

/// A configuration of a method, and what to call it.
struct Case {
  std::string name;
  LoraConfig config;
};

inline Case method_case(const std::string& name, const MethodFields& fields, const std::string& variant = {}) {
  LoraConfig config;
  set_method(config, name);
  config.rank = 4;
  for (const auto& [key, value] : fields) config.fields[key] = value;
  config.target_modules = std::vector<std::string>{"up_proj", "down_proj"};
  return {name + variant, config};
}

inline std::vector<Case> all_cases() {
  const std::vector<std::string> feedforward{"down_proj"};
  return {method_case("lora", {}),
          method_case("dora", {}),
          method_case("vera", {{"r", 6.0}, {"projection_prng_key", 3.0}}),
          method_case("ia3", {{"feedforward_modules", feedforward}}),
          method_case("oft", {{"oft_block_size", 8.0}}),
          method_case("oft", {{"oft_block_size", 8.0}, {"use_cayley_neumann", false}}, ", exact"),
          method_case("oft", {{"r", 4.0}, {"oft_block_size", 0.0}, {"block_share", true}}, ", one rotation"),
          method_case("oft", {{"oft_block_size", 7.0}, {"coft", true}, {"eps", 0.01}}, ", constrained"),
          method_case("hra", {{"r", 4.0}}),
          method_case("hra", {{"r", 4.0}, {"apply_GS", true}}, ", orthogonal"),
          method_case("miss", {{"r", 4.0}}),
          method_case("miss", {{"r", 4.0}, {"init_weights", "mini"}, {"mini_r", 8.0}}, ", mini"),
          method_case("miss", {{"r", 8.0}, {"init_weights", "bat"}}, ", bat"),
          method_case("adalora", {{"init_r", 4.0}}),
          method_case("loha", {{"r", 3.0}, {"alpha", 5.0}}),
          method_case("lokr", {{"r", 2.0}}),
          method_case("lokr", {{"r", 1.0}, {"decompose_both", true}, {"decompose_factor", 4.0}}, ", both"),
          method_case("lokr", {{"r", 16.0}, {"init_weights", "lycoris"}}, ", whole"),
          method_case("lora-xs", {{"r", 4.0}})};
}

/// up [96, 64] and down [64, 96], with biases, in one format.
struct Layers {
  AdaptedLinear up, down;

  explicit Layers(const std::string& format) : up(base(format, 96, 64, 1)), down(base(format, 64, 96, 2)) {}
  std::vector<NamedLayer> named_layers() const { return {{"model.layers.0.mlp.up_proj", &up}, {"model.layers.0.mlp.down_proj", &down}}; }
  template <class X>
  auto operator()(const X& x, UpdateSet& set) {
    return down.forward(up.forward(x, set.at(0)), set.at(1));
  }

 private:
  static AnyLinear base(const std::string& format, Index out, Index in, std::uint64_t seed) {
    Weight<float> w(out, in);
    fill_normal(w, 0.2, Random(seed));
    const Column<float> bias = Column<float>::LinSpaced(out, -1, 1);
    if (format == "nf4") return AnyLinear(AnyMatrix(quantize<Nf4<32>>(w)), bias);
    if (format == "q4_1") return AnyLinear(AnyMatrix(quantize<Q4_1>(w)), bias);
    AnyLinear dense(Linear<float>(w, bias));
    dense.set_trainable(false);
    return dense;
  }
};

inline const std::vector<std::string> formats{"dense", "nf4", "q4_1"};

/// Moves every number that is trained.
inline void move(UpdateSet& set, std::uint64_t seed = 20) {
  set.visit_parameters([&](Parameter<float>& parameter) {
    Weight<float> more(parameter.rows(), parameter.cols());
    fill_normal(more, 0.1, Random(seed++));
    if (parameter.trainable) parameter.value += more;
  });
}

}  // namespace method_cases
