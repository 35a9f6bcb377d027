#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <lowrank/nn/init.hpp>
#include <lowrank/nn/linear_layer.hpp>
#include <lowrank/ops/lora_together.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A fresh update. rank = Dynamic means the layer's static rank, else 8.
struct LoraOptions {
  Index rank = Dynamic;
  double alpha = 8;         ///< s = alpha / r
  bool use_rslora = false;  ///< s = alpha / √r (Kalajdzievski 2023)
  double dropout = 0;       ///< on the input of the update alone, while a tape records
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  ///< another one for each layer of a model, so that equal layers begin differently
  LoraInit init = LoraInit::kaiming;
};

/// The scale s of an update: alpha / r, rank-stabilized alpha / √r.
inline double lora_scale(double alpha, Index rank, bool use_rslora) {
  return alpha / (use_rslora ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

/// The numbers of one update s·B·A: A [r, in], B [out, r]; exchangeable while the base stays.
template <class S = float, int Rank = Dynamic, int In = Dynamic, int Out = Dynamic>
struct LoraWeights {
  using Scalar = S;

  Parameter<S, Rank, In> a;
  Parameter<S, Out, Rank> b;
  S scale = S(1);
  S dropout = S(0);
  std::uint64_t dropout_seed = 0;
  std::uint64_t dropout_stream = 0;  ///< of the next mask; each recorded pass takes one. Save it to resume with the same masks.

  /// A and B rounded to bfloat16 for inference in Compute::bf16, by round(): half the bytes to read for each token. Empty otherwise.
  std::vector<bfloat16> rounded_a = {}, rounded_b = {};

  /// Fills rounded_a and rounded_b; to be called again after a change of A or B.
  void round() {
    const auto copy = [](const auto& from, std::vector<bfloat16>& to) {
      to.resize(static_cast<std::size_t>(from.size()));
      std::transform(from.data(), from.data() + from.size(), to.begin(), [](S x) { return bfloat16(static_cast<float>(x)); });
    };
    copy(a.value, rounded_a);
    copy(b.value, rounded_b);
  }

  Index rank() const { return a.rows(); }
  bool needs_grad() const { return a.needs_grad() || b.needs_grad(); }
  void set_trainable(bool trainable) { a.trainable = b.trainable = trainable; }

  /// The update where it lies, as the operations take it.
  LowRank<S> view() const { return {{a.value.data(), a.rows(), a.cols()}, {b.value.data(), b.rows(), b.cols()}, scale}; }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(a);
    visitor(b);
  }
};

/// A fresh update of a weight [out, in]: A drawn by options.init, B = 0. Throws ValueError.
template <class S = float, int Rank = Dynamic, int In = Dynamic, int Out = Dynamic>
LoraWeights<S, Rank, In, Out> make_lora(Index in, Index out, const LoraOptions& options) {
  const Index rank = options.rank != Dynamic ? options.rank : Rank != Dynamic ? Rank : 8;
  check<ValueError>(rank > 0, "lora", "rank = ", rank, "; it must be at least 1");
  check<ValueError>(Rank == Dynamic || rank == Rank, "lora", "options.rank = ", rank, " but the layer's rank is ", Rank,
                    " by its type; leave options.rank out");
  check<ValueError>(std::isfinite(options.alpha), "lora", "alpha = ", options.alpha, "; it must be finite");
  check<ValueError>(options.dropout >= 0 && options.dropout < 1, "lora", "dropout = ", options.dropout, "; it must lie in [0, 1)");
  LoraWeights<S, Rank, In, Out> update;
  update.a.name = "lora_A.weight";
  update.a.value.resize(rank, in);
  init_lora_a(update.a.value, options.init, Random(options.seed, options.stream));
  update.b.name = "lora_B.weight";
  update.b.value.setZero(out, rank);
  update.scale = static_cast<S>(lora_scale(options.alpha, rank, options.use_rslora));
  update.dropout = static_cast<S>(options.dropout);
  update.dropout_seed = options.seed ^ (options.stream * 0x9E3779B97F4A7C15u);  // masks of equal layers differ, too
  return update;
}

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
Var<S, Device> lora_product(const W& source, Weights& update, const Var<S, Device>& x, Compute compute) {
  const Mask mask = next_mask(update, x);
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

}  // namespace detail

/// layer(x) + s B (A x), recorded. Over a frozen weight both are one operation that keeps X and A X; else the layer records itself.
template <LinearLayer Layer, class Weights, class S, class Device>
Var<S, Device> adapted_forward(Layer& layer, Weights& update, const Var<S, Device>& x) {
  detail::check_input("lora_linear", x.rows(), x.cols(), layer.in_features());
  if constexpr (HasSource<Layer>) {
    if (!layer.weight_trainable()) return detail::add_bias(detail::lora_product(layer.source(), update, x, layer.compute()), layer.bias());
  }
  return layer(x) + detail::lora_product(detail::NoSource{}, update, x, detail::compute_of(layer));
}

/// The same without a tape.
template <LinearLayer Layer, class Weights, MatrixLike X>
auto adapted_forward(const Layer& layer, const Weights& update, const X& x) {
  using S = typename Layer::Scalar;
  detail::check_input("lora_linear", x.rows(), x.cols(), layer.in_features());
  if constexpr (detail::static_in<Layer>() != Dynamic && detail::static_out<Layer>() != Dynamic) {
    auto y = layer(x);
    const auto h = (update.a.value * x).eval();          // [r, in] · [in, T]
    y.noalias() += update.scale * (update.b.value * h);  // [out, r] · [r, T]
    return y;
  } else {
    Activation<S> y = layer(x);
    const auto h = multiply(update.view().a_source(), x, detail::compute_of(layer));
    accumulate_product(y, update.view().b_source(), h, update.scale, detail::compute_of(layer));
    return y;
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
