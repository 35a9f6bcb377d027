#pragma once

/// Losses that are a sum over numbers, with PyTorch's conventions; mse and cross_entropy stand in functions.hpp.

#include <utility>

#include <lowrank/autograd/on_cpu.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/ops/pointwise_loss.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
/// The reduced terms as a [1, 1]. Keeps X and the target.
template <class S, class Device, class Term>
Var<S> pointwise_loss(const char* operation, const Term& term, const Var<S, Device>& input, Activation<S> target, Reduction reduction) {
  const Var<S> x = on_cpu(input);
  Activation<S> loss = Activation<S>::Constant(1, 1, pointwise_loss_forward(operation, term, x.value(), target, reduction));
  return record(std::move(loss), {x}, [=, x = x.kept(), target = std::move(target)](auto& flow) {
    flow.add(0, pointwise_loss_backward(operation, term, *x.get(), target, reduction, flow.gradient()(0, 0)));
  });
}
}  // namespace detail

/// Binary cross-entropy of logits with targets in [0, 1], of one shape; finite for any finite logits.
///
/// max(x, 0) − x t + log(1 + e^−|x|), its mean unless told otherwise: PyTorch's binary_cross_entropy_with_logits. Throws ShapeError.
template <class S, class Device>
Var<S> binary_cross_entropy_with_logits(const Var<S, Device>& logits, std::type_identity_t<Activation<S>> target,
                                        Reduction reduction = Reduction::mean) {
  return detail::pointwise_loss("binary_cross_entropy_with_logits", LogitsTerm{}, logits, std::move(target), reduction);
}

/// Huber's loss: e² / 2 of e = x − target where |e| ≤ δ, else δ (|e| − δ/2), its mean unless told otherwise: PyTorch's huber_loss.
///
/// Throws ShapeError, and ValueError unless δ > 0.
template <class S, class Device>
Var<S> huber(const Var<S, Device>& x, std::type_identity_t<Activation<S>> target, double delta = 1, Reduction reduction = Reduction::mean) {
  check<ValueError>(is_finite(delta) && delta > 0, "huber", "delta is ", delta, " but must be positive; mse() is the limit of a large one");
  return detail::pointwise_loss("huber", HuberTerm{delta}, x, std::move(target), reduction);
}

/// Kullback-Leibler divergence KL(p ‖ q) of log-probabilities log q (log_softmax) from target probabilities p: Σ p (log p − log q).
///
/// PyTorch's kl_div(log_q, p) with "batchmean": the sum over the number of columns, so a mean over tokens. Throws ShapeError.
template <class S, class Device>
Var<S> kl_divergence(const Var<S, Device>& log_q, std::type_identity_t<Activation<S>> p, Reduction reduction = Reduction::batch_mean) {
  return detail::pointwise_loss("kl_divergence", DivergenceTerm{}, log_q, std::move(p), reduction);
}

}  // namespace lowrank::inline LOWRANK_ABI
