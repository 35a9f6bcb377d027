#pragma once

/// The layers, inputs and updates of the pinned problems, and the few calls that run them. Numbers are uniform, which is exact arithmetic
/// on the same random words everywhere.

#include <cstring>
#include <string>
#include <vector>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>

#include "pins.hpp"

namespace pins {

/// Numbers of tokens on both sides of where the kernels change: one, few, many.
inline constexpr Index all_tokens[] = {1, 4, 8, 9, 33, 130};
inline constexpr Compute trained_computes[] = {Compute::fp32, Compute::bf16}, computes[] = {Compute::fp32, Compute::bf16, Compute::int8};

inline std::string name_of(Compute compute) { return compute == Compute::fp32 ? "fp32" : compute == Compute::bf16 ? "bf16" : "int8"; }
inline std::string name_of(Compute compute, Index tokens) { return name_of(compute) + "/t" + std::to_string(tokens); }

template <class S = float>
Weight<S> drawn_weight(Index rows, Index cols, std::uint64_t seed, double bound = 0.3) {
  Weight<S> w(rows, cols);
  fill_uniform(w, bound, Random(seed));
  return w;
}
template <class S = float>
Activation<S> drawn_columns(Index rows, Index cols, std::uint64_t seed) {
  Activation<S> x(rows, cols);
  fill_uniform(x, 1, Random(seed));
  return x;
}
template <class S = float>
Column<S> drawn_vector(Index size, std::uint64_t seed) {
  return drawn_weight<S>(size, 1, seed).col(0);
}

inline StoredMatrix<BFloat16> rounded(const Weight<float>& w) {
  Buffer buffer = Buffer::allocate(static_cast<std::size_t>(w.size()) * sizeof(BFloat16));
  for (Index i = 0; i < w.size(); ++i) buffer.mutable_as<BFloat16>()[i] = BFloat16(w.data()[i]);
  return StoredMatrix<BFloat16>(w.rows(), w.cols(), std::move(buffer));
}

/// A DoRA update's length, or null.
template <class Update>
auto* length_of(Update& update) {
  if constexpr (requires { update.magnitude; })
    return update.magnitude.empty() ? nullptr : &update.magnitude;
  else
    return static_cast<const Parameter<typename Update::Scalar>*>(nullptr);
}

/// Gives what begins as zero, or as a length, other numbers, so that the update does something.
template <class Update>
void move_update(Update& update, std::uint64_t seed) {
  using S = typename Update::Scalar;
  fill_uniform(update.b.value, 0.3, Random(seed));
  if (!update.bias.empty()) fill_uniform(update.bias.value, 0.5, Random(seed + 1));
  if constexpr (requires { update.magnitude; })
    if (auto* m = length_of(update)) m->value.array() *= S(1.25) + drawn_weight<S>(m->rows(), 1, seed + 2).array();
}

template <class Parameter>
void clear_gradient(Parameter& parameter) {
  if (parameter.needs_grad()) parameter.gradient().setZero();
}
template <class Update>
void clear_gradients(Update& update) {
  update.visit_parameters([](auto& parameter) { clear_gradient(parameter); });
}
/// Gradients of an update, a hash for each kind.
template <class Update>
void add_gradients(Results& results, const std::string& name, const Update& update) {
  results.add(name + "/da", update.a.grad);
  results.add(name + "/db", update.b.grad);
  if (!update.bias.empty()) results.add(name + "/dbias", update.bias.grad);
  if (const auto* m = length_of(update)) results.add(name + "/dm", m->grad);
}

/// A layer without a tape: its output, and what nesting uses.
template <class Layer>
void pin_untaped(Results& results, const std::string& name, const Layer& layer, Index tokens) {
  using S = typename Layer::Scalar;
  const auto x = drawn_columns<S>(layer.in_features(), tokens, 1), g = drawn_columns<S>(layer.out_features(), tokens, 2);
  results.add(name + "/y", layer(x));
  results.add(name + "/products", layer.product(x));
  if (layer.compute() != Compute::int8) results.add(name + "/products", layer.transposed_product(g));  // int8 has no gradient
}

/// A layer on a tape: its output and gradients. Those of an x that needs none are "of_frozen_x".
template <class Layer>
void pin_taped(Results& results, const std::string& name, Layer& layer, Index tokens) {
  using S = typename Layer::Scalar;
  const auto x = drawn_columns<S>(layer.in_features(), tokens, 1), g = drawn_columns<S>(layer.out_features(), tokens, 2);
  const auto sweep = [&](Tape<S>& tape, const Var<S>& input) {
    clear_gradients(layer.update());
    layer.base().visit_parameters([](auto& parameter) { clear_gradient(parameter); });
    const Var<S> y = layer(input);
    tape.backward(y, g);
    return y;
  };
  Tape<S> tape;
  const Var<S> input = tape.variable(x);
  results.add(name + "/taped", sweep(tape, input).value());
  results.add(name + "/dx", tape.gradient(input));
  add_gradients(results, name, layer.update());
  layer.base().visit_parameters([&](auto& parameter) {
    if (parameter.needs_grad()) results.add(name + "/base_" + parameter.name, parameter.grad);
  });
  Tape<S> other;
  sweep(other, other.input(x));
  results.add(name + "/of_frozen_x", layer.update().a.grad);
  results.add(name + "/of_frozen_x", layer.update().b.grad);
}

/// A layer with and without a tape.
template <class Layer>
void pin_layer(Results& results, const std::string& name, Layer& layer, Index tokens) {
  pin_untaped(results, name, layer, tokens);
  pin_taped(results, name, layer, tokens);
}

/// LoRA over make_base(W, bias): ranks 1, 4 and 16, a bias that is frozen, trained or missing, two shapes. A hash for each Compute, number
/// of tokens and kind of result.
template <class MakeBase>
void pin_lora(Results& results, const MakeBase& make_base) {
  for (const bool has_bias : {false, true}) {
    for (const Index rank : {1, 4, 16}) {
      const Index in = rank == 4 ? 160 : 128, out = rank == 4 ? 50 : 72;
      auto base = make_base(drawn_weight(out, in, 3), has_bias ? drawn_vector(out, 4) : Column<float>());
      LoraLinear layer{base, {.rank = rank, .alpha = 1.5 * static_cast<double>(rank), .lora_bias = has_bias, .seed = 5}};
      move_update(layer.update(), 6);
      if (has_bias) layer.base().bias().trainable = rank != 16;
      for (const Index tokens : all_tokens) {
        for (const Compute compute : trained_computes) {
          layer.set_compute(compute);
          pin_layer(results, name_of(compute, tokens), layer, tokens);
        }
        layer.set_compute(Compute::int8);
        pin_untaped(results, name_of(Compute::int8, tokens), layer, tokens);
      }
    }
  }
}

/// DoRA likewise; "prepared" is after prepare().
template <class MakeBase>
void pin_dora(Results& results, const MakeBase& make_base) {
  for (const Index rank : {1, 4}) {
    const Index in = rank == 4 ? 160 : 128, out = rank == 4 ? 50 : 72;
    DoraLinear layer{make_base(drawn_weight(out, in, 3), rank == 4 ? drawn_vector(out, 4) : Column<float>()),
                     {.rank = rank, .alpha = 1.5 * static_cast<double>(rank), .seed = 5}};
    results.add("magnitude", layer.magnitude().value);
    move_update(layer.update(), 6);
    if (rank == 4) layer.base().bias().trainable = true;
    for (const Index tokens : {1, 8, 9, 130})
      for (const Compute compute : trained_computes) {
        layer.set_compute(compute);
        pin_layer(results, name_of(compute, tokens), layer, tokens);
      }
    for (const Compute compute : computes) {
      layer.set_compute(compute);
      layer.prepare();
      for (const Index tokens : {1, 9}) pin_untaped(results, "prepared/" + name_of(compute, tokens), layer, tokens);
      layer.update().gain.resize(0);
    }
  }
}

}  // namespace pins
