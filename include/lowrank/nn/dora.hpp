#pragma once

#include <utility>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/nn/linear_layer.hpp>
#include <lowrank/nn/lora_weights.hpp>
#include <lowrank/ops/dora.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// W Aᵀ [out, r]: A's rows are columns of an activation.
template <class Layer, class Weights>
auto base_times_a(const Layer& layer, const Weights& update) {
  using S = typename Weights::Scalar;
  return layer.product(Activation<S>(update.a.value.transpose()));
}

}  // namespace detail

/// n = ‖W_o + s B_o A‖ of each row of a layer and its DoRA update, as of now. Cost: one pass over W with r tokens.
template <class Layer, class Weights>
auto dora_norms(const Layer& layer, const Weights& update) {
  return dora_norms<typename Weights::Scalar>(update.weight_squares, update.view(), detail::base_times_a(layer, update));
}

/// Makes an update of a layer DoRA: ‖W_o‖² is kept, and m begins as ‖W_o + s B_o A‖, so that nothing changes yet.
template <class Layer, class Weights>
void make_dora(const Layer& layer, Weights& update) {
  update.weight_squares = row_squares<typename Weights::Scalar>(layer.source());
  update.magnitude.name = "lora_magnitude_vector";
  update.magnitude.value = dora_norms(layer, update);
}

/// Computes m / n once, for inference with fixed weights: from then on DoRA costs a factor a row. Nothing to do for plain LoRA.
template <class Layer, class Weights>
void prepare_dora(const Layer& layer, Weights& update) {
  if (update.is_dora()) update.gain = dora_gain(update.magnitude.value, dora_norms(layer, update));
}

namespace detail {

/// Y = (m / n) ∘ P, recorded: keeps P. n is a constant.
template <class Weights, class S, class Device>
Var<S, Device> scale_rows(const Var<S, Device>& p, Weights& update, Vector<S> norms) {
  const Vector<S> gain = dora_gain(update.magnitude.value, norms);
  auto backward = [u = &update, kept = p.kept(), gain, norms = std::move(norms)](auto& flow) {
    auto gradients = dora_backward<S>(*kept.get(), gain, norms, flow.take());
    if (u->magnitude.needs_grad()) gradient_vector(u->magnitude) += gradients.dm;
    flow.add(0, std::move(gradients.dp));
  };
  return record(dora_forward(p.value(), gain), {p}, std::move(backward), update.magnitude.needs_grad());
}

/// Y + s b 1ᵀ for the bias b of B, recorded; Y itself where there is none.
template <class Weights, class S, class Device>
Var<S, Device> add_update_bias(Var<S, Device> y, Weights& update) {
  if (update.bias.empty()) return y;
  Array<S, Device> z = y.take();
  z.colwise() += update.scale * vector_of(update.bias);
  auto backward = [u = &update](auto& flow) {
    if (u->bias.needs_grad()) gradient_vector(u->bias) += u->scale * flow.gradient().rowwise().sum();
    flow.add(0, flow.take());
  };
  return record(std::move(z), {y}, std::move(backward), update.bias.needs_grad());
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
