#include "together.hpp"

#include <lowrank/core/batch_invariant.hpp>

using namespace lowrank;
using pins::Method;
using pins::Together;

namespace {

/// The same layers in one call and in a call each, for each number of tokens.
template <class Change>
void pin_group(pins::Results& results, const std::string& name, const std::vector<Method>& methods, const std::vector<Index>& counts,
               const Change& change) {
  for (const Compute compute : pins::trained_computes) {
    Together<float> group(compute, methods);
    change(group);
    for (const Index tokens : counts) {
      pins::pin_forward(results, name + "together/" + pins::name_of(compute, tokens), group, tokens, pins::together, {0, 1, 2});
      pins::pin_forward(results, name + "alone/" + pins::name_of(compute, tokens), group, tokens, pins::alone, {0, 1, 2});
    }
  }
}
const auto unchanged = [](auto&) {};
const std::vector<Index> every(std::begin(pins::all_tokens), std::end(pins::all_tokens));

}  // namespace

TEST_CASE("pinned: layers of one x, LoRA, none and LoRA with a bias of B, together and alone") {
  pins::check_pinned("groups_lora", [](pins::Results& results) {
    pin_group(results, "", {Method::lora, Method::none, Method::biased}, every, unchanged);
    pin_group(results, "base_bias/", {Method::lora, Method::none, Method::biased}, {1, 9, 33},
              [](auto& group) { group.layers[0].base.bias().trainable = true; });
    pin_group(results, "bare/", {Method::none, Method::none, Method::none}, {1, 9, 33},
              [](auto& group) { group.layers[0].base.bias().trainable = true; });
    Together<float> group(Compute::int8, {Method::lora, Method::none, Method::biased});
    for (const Index tokens : pins::all_tokens) {
      const Var<float> x(pins::drawn_columns(128, tokens, 1));
      for (const auto& y : group.together(x)) results.add("together/" + pins::name_of(Compute::int8, tokens) + "/y", y.value());
    }
  });
}

TEST_CASE("pinned: layers of one x with DoRA, together and alone") {
  pins::check_pinned("groups_dora", [](pins::Results& results) {
    pin_group(results, "", {Method::dora, Method::none, Method::dora}, every, unchanged);
    pin_group(results, "zero_length/", {Method::dora, Method::lora, Method::none}, {1, 9, 33},
              [](auto& group) { group.updates[0]->magnitude.value(3, 0) = 0; });
    Together<float> group(Compute::bf16, {Method::dora, Method::none, Method::lora});
    for (std::size_t i : {0, 2}) group.updates[i]->prepare(lowrank::detail::layer_view(group.layers[i].base));
    for (const Index tokens : pins::all_tokens)
      pins::pin_forward(results, "prepared/" + pins::name_of(Compute::bf16, tokens), group, tokens, pins::together, {0, 1, 2});
  });
}

TEST_CASE("pinned: layers of one x whose updates are rounded to bfloat16, for inference") {
  pins::check_pinned("groups_rounded", [](pins::Results& results) {
    for (const Compute compute : pins::computes) {
      Together<float> group(compute, {Method::lora, Method::none, Method::dora});
      for (auto& update : group.updates)
        if (update) update->round();
      for (const Index tokens : pins::all_tokens) {
        const Var<float> x(pins::drawn_columns(128, tokens, 1));
        for (const auto& y : group.together(x)) results.add(pins::name_of(compute, tokens) + "/y", y.value());
      }
    }
  });
}

TEST_CASE("pinned: layers of one x where the loss does not depend on all of them, and under BatchInvariant") {
  pins::check_pinned("groups_special", [](pins::Results& results) {
    for (const Compute compute : pins::trained_computes) {
      Together<float> group(compute, {Method::lora, Method::lora, Method::dora});
      for (const Index tokens : {1, 9, 33}) {
        pins::pin_forward(results, "partly_used/" + pins::name_of(compute, tokens), group, tokens, pins::together, {1});
        const BatchInvariant guard;
        pins::pin_forward(results, "batch_invariant/" + pins::name_of(compute, tokens), group, tokens, pins::together, {0, 1, 2});
      }
    }
  });
}
