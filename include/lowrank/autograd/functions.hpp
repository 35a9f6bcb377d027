#pragma once

/// The operations of ops/ on Vars: the same names without _forward. Each keeps what its backward function needs and no more.

#include <cstdint>
#include <memory>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/autograd/arithmetic.hpp>
#include <lowrank/autograd/parameter.hpp>
#include <lowrank/ops/activation.hpp>
#include <lowrank/ops/attention.hpp>
#include <lowrank/ops/loss.hpp>
#include <lowrank/ops/norm.hpp>
#include <lowrank/ops/rope.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
// A parameter [n, 1] or [1, n] as a vector, and its gradient.
template <class S, int Rows, int Cols>
auto vector_of(const Parameter<S, Rows, Cols>& parameter) {
  return Eigen::Map<const Column<S>>(parameter.value.data(), parameter.size());
}
template <class S, int Rows, int Cols>
auto gradient_vector(Parameter<S, Rows, Cols>& parameter) {
  return Eigen::Map<Column<S>>(parameter.gradient().data(), parameter.size());
}
}  // namespace detail

/// rms_norm_forward with a weight [n] that may be trainable. Keeps X; the result is computed again where it is needed.
template <class S, class Device, int Rows, int Cols>
Var<S, Device> rms_norm(const Var<S, Device>& x, Parameter<S, Rows, Cols>& weight, std::type_identity_t<S> epsilon) {
  const Kept<S, Device> kept = x.kept();
  const auto forward = [w = Handle(weight), epsilon](const ArrayOn<S, Device>& in) {
    return rms_norm_forward(in, detail::vector_of(*w), epsilon);
  };
  const auto backward = [kept, w = Handle(weight), epsilon](auto& flow) {
    auto gradients = rms_norm_backward(*kept.get(), detail::vector_of(*w), epsilon, flow.gradient(), w->needs_grad());
    if (w->needs_grad()) detail::gradient_vector(*w) += gradients.dweight;
    flow.add(0, std::move(gradients.dx));
  };
  return record(forward(x.value()), {x}, backward, weight.needs_grad()).restored_by([kept, forward] { return forward(*kept.get()); });
}

/// max(x, 0). Keeps X.
template <class S, class Device>
Var<S> relu(const Var<S, Device>& input) {
  const Var<S> x = detail::on_cpu(input);
  return record(relu_forward(x.value()), {x}, [x = x.kept()](auto& flow) { flow.add(0, relu_backward(*x.get(), flow.gradient())); });
}

/// x σ(x). Keeps X.
template <class S, class Device>
Var<S> silu(const Var<S, Device>& input) {
  const Var<S> x = detail::on_cpu(input);
  return record(silu_forward(x.value()), {x}, [x = x.kept()](auto& flow) { flow.add(0, silu_backward(*x.get(), flow.gradient())); });
}

/// x Φ(x). Keeps X.
template <class S, class Device>
Var<S> gelu(const Var<S, Device>& input) {
  const Var<S> x = detail::on_cpu(input);
  return record(gelu_forward(x.value()), {x}, [x = x.kept()](auto& flow) { flow.add(0, gelu_backward(*x.get(), flow.gradient())); });
}

/// GELU's tanh form. Keeps X.
template <class S, class Device>
Var<S> gelu_tanh(const Var<S, Device>& input) {
  const Var<S> x = detail::on_cpu(input);
  return record(gelu_tanh_forward(x.value()), {x},
                [x = x.kept()](auto& flow) { flow.add(0, gelu_tanh_backward(*x.get(), flow.gradient())); });
}

/// silu(gate) ∘ up. Keeps both; the result is computed again where it is needed.
template <class S, class Device>
Var<S, Device> swiglu(const Var<S, Device>& gate, const Var<S, Device>& up) {
  const Kept<S, Device> kept_gate = gate.kept(), kept_up = up.kept();
  const auto with_both = [kept_gate, kept_up](const auto& read) {
    return kept_gate.with_tokens([&](const auto& g) { return kept_up.with_tokens([&](const auto& u) { return read(g, u); }); });
  };
  const auto backward = [with_both](auto& flow) {
    auto gradients = with_both([&](const auto& g, const auto& u) { return swiglu_backward(g, u, flow.gradient()); });
    flow.add(0, std::move(gradients.dgate));
    flow.add(1, std::move(gradients.dup));
  };
  return record(swiglu_forward(gate.value(), up.value()), {gate, up}, backward).restored_by([with_both] {
    return with_both([](const auto& g, const auto& u) { return swiglu_forward(g, u); });
  });
}

/// dropout_forward; the mask is drawn anew in the backward pass from the same key. Keeps nothing.
template <class S, class Device>
Var<S> dropout(const Var<S, Device>& input, double probability, DropoutKey key) {
  const Var<S> x = detail::on_cpu(input);
  return record(dropout_forward(x.value(), probability, key), {x},
                [probability, key](auto& flow) { flow.add(0, dropout_backward(flow.gradient(), probability, key)); });
}

/// rope_forward with a table that all heads and layers share. Keeps the table; X only if the result is kept, to turn it again.
template <class S, class Device>
Var<S, Device> rope(const Var<S, Device>& x, std::shared_ptr<const RopeTable<S>> table) {
  const auto backward = [table](auto& flow) { flow.add(0, rope_backward(flow.gradient(), *table)); };
  return record(rope_forward(x.value(), *table), {x}, backward).restored_by([kept = x.kept(), table] {
    return rope_forward(*kept.get(), *table);
  });
}
/// The same with a table made for this call.
template <class S, class Device>
Var<S, Device> rope(const Var<S, Device>& x, std::span<const Index> positions, const RopeOptions& options) {
  return rope(x, std::make_shared<const RopeTable<S>>(positions, options));
}

/// Causal attention with grouped key and value heads. Keeps Q, K, V, Y and a number a head and token; no array of size T².
template <class S, class Device>
Var<S, Device> attention(const Var<S, Device>& q, const Var<S, Device>& k, const Var<S, Device>& v, const AttentionShape& shape,
                         Compute compute = Compute::fp32) {
  if (q.requires_grad() || k.requires_grad() || v.requires_grad()) detail::check_gradient_compute("attention", compute);
  auto forward = attention_forward(q.value(), k.value(), v.value(), shape, compute);
  const auto y = detail::share(std::move(forward.y));
  const auto restorer = q.tape() ? std::make_shared<Restorer<S, Device>>(y, compute) : nullptr;
  const auto backward = [q = q.kept(), k = k.kept(), v = v.kept(), y = restorer ? Kept<S, Device>(restorer) : Kept<S, Device>(y),
                         lse = std::move(forward.log_sum_exp), shape, compute](auto& flow) {
    auto gradients = attention_backward(*q.get(), *k.get(), *v.get(), *y.get(), lse, flow.gradient(), shape, compute);
    flow.add(0, std::move(gradients.dq));
    flow.add(1, std::move(gradients.dk));
    flow.add(2, std::move(gradients.dv));
  };
  return record(y, {q, k, v}, backward).kept_by(restorer);
}

namespace detail {
template <class S, class Device = Cpu>
ArrayOn<S, Device> number(S value) {
  return ArrayOn<S, Device>::Constant(1, 1, value);
}

/// Targets that are no 32-bit integers in one piece of memory.
template <class Targets>
concept OtherTargets = std::ranges::input_range<Targets> && !std::is_convertible_v<const Targets&, std::span<const std::int32_t>>;

/// Targets of any integer type as those that losses read. Throws ValueError for one that has no place in 32 bits.
template <class Targets>
std::vector<std::int32_t> to_targets(const char* operation, const Targets& targets) {
  using Number = std::ranges::range_value_t<Targets>;
  static_assert(std::is_integral_v<Number> && !std::is_same_v<Number, bool>,
                "cross_entropy: targets must be a range of integers, the class of each token, such as std::vector<std::int32_t>");
  std::vector<std::int32_t> narrow;
  if constexpr (std::is_integral_v<Number>)
    for (const Number target : targets) {
      check<ValueError>(std::in_range<std::int32_t>(target), operation, "target ", target, " at token ", narrow.size(),
                        " is no class: it has no place in 32 bits");
      narrow.push_back(static_cast<std::int32_t>(target));
    }
  return narrow;
}
}  // namespace detail

/// Mean over the tokens of -log softmax(logits)[target], a [1, 1]; tokens whose target is ignored_target do not count. Keeps the logits.
template <class S, class Device>
Var<S> cross_entropy(const Var<S, Device>& input, std::span<const std::int32_t> targets) {
  const Var<S> logits = detail::on_cpu(input);
  auto backward = [logits = logits.kept(), targets = std::vector<std::int32_t>(targets.begin(), targets.end())](auto& flow) {
    flow.add(0, cross_entropy_backward(*logits.get(), targets, flow.gradient()(0, 0)));
  };
  return record(detail::number<S>(cross_entropy_forward(logits.value(), targets).loss), {logits}, std::move(backward));
}

/// The same with targets of another integer type.
template <class S, class Device, detail::OtherTargets Targets>
Var<S> cross_entropy(const Var<S, Device>& logits, const Targets& targets) {
  return cross_entropy(logits, std::span<const std::int32_t>(detail::to_targets("cross_entropy", targets)));
}

/// cross_entropy of the logits W X of a frozen head W [vocabulary, dim], in slices of tokens: never [vocabulary, T]. Keeps dX.
template <Source W, class S, class Device>
Var<S, Device> linear_cross_entropy(const W& head, const Var<S, Device>& x, std::span<const std::int32_t> targets,
                                    Compute compute = Compute::fp32) {
  if (x.requires_grad()) detail::check_gradient_compute("linear_cross_entropy", compute);
  auto forward = linear_cross_entropy(head, x.value(), targets, compute, x.requires_grad());
  return record(detail::number<S, Device>(forward.loss), {x}, [dx = std::move(forward.dx)](auto& flow) mutable {
    dx *= flow.gradient()(0, 0);
    flow.add(0, std::move(dx));
  });
}

/// The same with a head [vocabulary, dim] that is a parameter and may be trainable. Keeps dX and dW.
template <class S, class Device>
Var<S, Device> linear_cross_entropy(Parameter<S>& head, const Var<S, Device>& x, std::span<const std::int32_t> targets,
                                    Compute compute = Compute::fp32) {
  const DenseSource<S> source(head.value.data(), head.rows(), head.cols());
  const bool trains = head.needs_grad() && x.tape() != nullptr;
  if (!trains) return linear_cross_entropy(source, x, targets, compute);
  detail::check_gradient_compute("linear_cross_entropy", compute);
  Weight<S> dw = Weight<S>::Zero(head.rows(), head.cols());
  auto forward = linear_cross_entropy(source, x.value(), targets, compute, x.requires_grad(), &dw);
  auto backward = [w = Handle(head), dw = std::move(dw), dx = std::move(forward.dx)](auto& flow) mutable {
    const S g = flow.gradient()(0, 0);
    w->gradient() += g * dw;
    dx *= g;
    if (flow.needs(0)) flow.add(0, std::move(dx));
  };
  return record(detail::number<S, Device>(forward.loss), {x}, std::move(backward), true);
}

/// Either, or that of a layer, with targets of another integer type.
template <class Head, class S, class Device, detail::OtherTargets Targets>
Var<S, Device> linear_cross_entropy(Head&& head, const Var<S, Device>& x, const Targets& targets) {
  return linear_cross_entropy(std::forward<Head>(head), x,
                              std::span<const std::int32_t>(detail::to_targets("linear_cross_entropy", targets)));
}
template <class Head, class S, class Device, detail::OtherTargets Targets>
Var<S, Device> linear_cross_entropy(Head&& head, const Var<S, Device>& x, const Targets& targets, Compute compute) {
  return linear_cross_entropy(std::forward<Head>(head), x,
                              std::span<const std::int32_t>(detail::to_targets("linear_cross_entropy", targets)), compute);
}

/// Mean of (X - target)² over all numbers, a [1, 1]. Keeps X and the target.
template <class S, class Device>
Var<S> mse(const Var<S, Device>& input, std::type_identity_t<Activation<S>> target) {
  const Var<S> x = detail::on_cpu(input);
  const S loss = mse_forward(x.value(), target);
  return record(detail::number<S>(loss), {x}, [x = x.kept(), target = std::move(target)](auto& flow) {
    flow.add(0, mse_backward(*x.get(), target, flow.gradient()(0, 0)));
  });
}

#if defined(LOWRANK_COMPILED)
extern template Var<float> rms_norm(const Var<float>&, Parameter<float>&, float);
extern template Var<float> relu(const Var<float>&);
extern template Var<float> silu(const Var<float>&);
extern template Var<float> gelu(const Var<float>&);
extern template Var<float> gelu_tanh(const Var<float>&);
extern template Var<float> swiglu(const Var<float>&, const Var<float>&);
extern template Var<float> dropout(const Var<float>&, double, DropoutKey);
extern template Var<float> rope(const Var<float>&, std::shared_ptr<const RopeTable<float>>);
extern template Var<float> rope(const Var<float>&, std::span<const Index>, const RopeOptions&);
extern template Var<float> attention(const Var<float>&, const Var<float>&, const Var<float>&, const AttentionShape&, Compute);
extern template Var<float> cross_entropy(const Var<float>&, std::span<const std::int32_t>);
extern template Var<float> linear_cross_entropy(Parameter<float>&, const Var<float>&, std::span<const std::int32_t>, Compute);
extern template Var<float> mse(const Var<float>&, Activation<float>);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/autograd/functions.inl>
#endif
