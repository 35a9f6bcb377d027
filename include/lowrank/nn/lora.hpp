#pragma once

#include <type_traits>
#include <utility>

#include <lowrank/nn/dora.hpp>
#include <lowrank/nn/linear_layer.hpp>
#include <lowrank/nn/lora_weights.hpp>
#include <lowrank/ops/lora_together.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// One dropout mask of an update's input, or none.
struct Mask {
  double probability = 0;
  DropoutKey key;

  template <class S>
  Activation<S> operator()(const Activation<S>& x) const {
    return dropout_forward(x, probability, key);  // its own backward: the same mask and scale
  }
  explicit operator bool() const { return probability > 0; }
};

// Masks are drawn for training only: when the pass is on a tape.
template <class Weights, class S, class Device>
Mask next_mask(Weights& update, const Var<S, Device>& x) {
  if (update.dropout == 0 || x.tape() == nullptr) return {};
  return {static_cast<double>(update.dropout), {update.dropout_seed, x.tape()->draw(update.dropout_stream)}};
}

template <class Layer>
Compute compute_of(const Layer& layer) {
  if constexpr (requires { layer.compute(); }) return layer.compute();
  return Compute::fp32;
}

struct NoSource {};  // the base of an update that stands alone

template <class W, class S>
LoraForward<S> masked_forward(const W& source, const LowRank<S>& update, const Activation<S>& x, const Mask& mask, Compute compute) {
  if constexpr (std::is_same_v<W, NoSource>) {
    return mask ? lora_update_forward(update, mask(x), compute) : lora_update_forward(update, x, compute);
  } else {
    if constexpr (std::is_same_v<S, float>)
      if (!mask && x.cols() > kernels::few_tokens) return lora_forward_packed(source, update, x, compute);
    if (!mask) return lora_forward(source, update, x, compute);
    auto forward = lora_update_forward(update, mask(x), compute);
    accumulate_product(forward.y, source, x, S(1), compute);  // [out, in] · [in, T]
    return forward;
  }
}

template <class W, class S>
LoraGradients<S> masked_backward(const W& source, const LowRank<S>& update, const Activation<S>& x, const Activation<S>& h,
                                 const Activation<S>& g, const Mask& mask, bool need_dx, Compute compute) {
  if constexpr (!std::is_same_v<W, NoSource>) {
    if constexpr (std::is_same_v<S, float>)
      if (!mask && need_dx && x.cols() > kernels::few_tokens) return lora_backward_packed(source, update, x, h, g, compute);
    if (!mask && need_dx) return lora_backward(source, update, x, h, g, compute);
  }
  if (!mask) return lora_update_backward(update, x, h, g, need_dx, compute);
  auto gradients = lora_update_backward(update, mask(x), h, g, need_dx, compute);
  if (!need_dx) return gradients;
  gradients.dx = mask(gradients.dx);
  if constexpr (!std::is_same_v<W, NoSource>) accumulate_transposed_product(gradients.dx, source, g, S(1), compute);  // + Wᵀ G
  return gradients;
}

template <class Weights, class S>
void add_gradients(Weights& update, const LoraGradients<S>& gradients) {
  if (update.a.needs_grad()) update.a.gradient() += gradients.da;
  if (update.b.needs_grad()) update.b.gradient() += gradients.db;
}

/// Y = W X + s B A mask(X), recorded: keeps X and H = A mask(X); without a source the update alone.
template <class W, class Weights, class S, class Device>
Var<S, Device> lora_product(const W& source, Weights& update, const Var<S, Device>& x, const Mask& mask, Compute compute) {
  auto forward = masked_forward(source, update.view(), x.value(), mask, compute);
  auto backward = [source, u = &update, kept = x.kept(), h = std::move(forward.h), mask, compute](auto& flow) {
    auto gradients = masked_backward(source, u->view(), *kept.get(), h, flow.gradient(), mask, flow.needs(0), compute);
    add_gradients(*u, gradients);
    if (flow.needs(0)) flow.add(0, std::move(gradients.dx));
  };
  return record(std::move(forward.y), {x}, std::move(backward), update.needs_grad()).kept_as(compute);
}

/// Y + b 1ᵀ in place where Y is held by nobody else, recorded.
template <class Bias, class S, class Device>
Var<S, Device> add_bias(Var<S, Device> y, Bias& bias) {
  if (bias.empty()) return y;
  Array<S, Device> z = y.take();
  add_bias(z, bias);
  return record(
      std::move(z), {y},
      [b = &bias](auto& flow) {
        add_bias_gradient(*b, flow.gradient());
        flow.add(0, flow.take());
      },
      bias.needs_grad());
}

/// (m / n) ∘ (V X) + b with V = W + s B A, recorded. Dropout is on the input of V alone, as in PEFT: with D = mask(X)
/// W X + b + (m / n) ∘ (V D) − W D.
template <class Layer, class Weights, class S, class Device>
Var<S, Device> dora_product(Layer& layer, Weights& update, const Var<S, Device>& x) {
  const Mask mask = next_mask(update, x);
  const auto& source = layer.source();
  const Compute compute = layer.compute();
  const Var<S, Device> d = mask ? dropout(x, mask.probability, mask.key) : x;
  Var<S, Device> y = scale_rows(lora_product(source, update, d, Mask{}, compute), update, dora_norms(layer, update));
  if (!mask) return add_bias(std::move(y), layer.bias());
  Parameter<S> none;
  return layer(x) + std::move(y) + scale(frozen_linear("dora_linear", source, none, d, compute), S(-1));
}

/// Makes W' X + s b of V X, where V = W + s B A: rows scaled for DoRA, the update's bias added.
template <class Layer, class Weights, class Y>
void finish_update([[maybe_unused]] const Layer& layer, const Weights& update, Y& y) {
  if constexpr (HasSource<Layer>) {
    if (update.is_dora()) {
      const auto gain = update.gain.size() > 0 ? update.gain : dora_gain(update.magnitude.value, dora_norms(layer, update));
      y.array().colwise() *= gain.array();
    }
  }
  if (!update.bias.empty()) y.colwise() += update.scale * vector_of(update.bias);
}

}  // namespace detail

/// layer(x) + s B (A x), recorded. Over a frozen weight both are one operation that keeps X and A X; else the layer records itself.
///
/// With a magnitude m it is DoRA: (m / n) ∘ (W + s B A) x + b. Throws ShapeError, ValueError for DoRA over a weight that is trained itself.
template <LinearLayer Layer, class Weights, class S, class Device>
Var<S, Device> adapted_forward(Layer& layer, Weights& update, const Var<S, Device>& x) {
  detail::check_input("lora_linear", x.rows(), x.cols(), layer.in_features());
  if constexpr (HasSource<Layer>) {
    if (!layer.weight_trainable() && update.is_dora()) return detail::dora_product(layer, update, x);
    if (!layer.weight_trainable()) {
      auto y = detail::lora_product(layer.source(), update, x, detail::next_mask(update, x), layer.compute());
      return detail::add_update_bias(detail::add_bias(std::move(y), layer.bias()), update);
    }
  }
  check<ValueError>(!update.is_dora(), "lora_linear", "DoRA needs a frozen weight; call set_trainable(false) of the base");
  auto y = layer(x) + detail::lora_product(detail::NoSource{}, update, x, detail::next_mask(update, x), detail::compute_of(layer));
  return detail::add_update_bias(std::move(y), update);
}

/// The same without a tape.
template <LinearLayer Layer, class Weights, MatrixLike X>
auto adapted_forward(const Layer& layer, const Weights& update, const X& x) {
  using S = typename Layer::Scalar;
  detail::check_input("lora_linear", x.rows(), x.cols(), layer.in_features());
  if constexpr (detail::static_in<Layer>() != Dynamic && detail::static_out<Layer>() != Dynamic) {
    auto y = layer.product(x);
    const auto h = (update.a.value * x).eval();          // [r, in] · [in, T]
    y.noalias() += update.scale * (update.b.value * h);  // [out, r] · [r, T]
    detail::finish_update(layer, update, y);
    if constexpr (HasSource<Layer>)
      if (!layer.bias().empty()) y.colwise() += detail::vector_of(layer.bias());
    return y;
  } else {
    constexpr bool has_source = HasSource<Layer>;
    Activation<S> y = has_source ? layer.product(x) : layer(x);
    const auto h = multiply(update.view().a_source(), x, detail::compute_of(layer));
    accumulate_product(y, update.view().b_source(), h, update.scale, detail::compute_of(layer));
    detail::finish_update(layer, update, y);
    if constexpr (has_source) detail::add_bias(y, layer.bias());
    return y;
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
