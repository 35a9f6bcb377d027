#pragma once

#include <utility>

#include <lowrank/ops/product.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A low-rank update s·B·A of a weight [out, in], seen where it lies: A [r, in], B [out, r], s = alpha / r.
template <class S>
struct LowRank {
  ConstWeightMap<S> a, b;
  S scale = S(1);

  DenseSource<S> a_source() const { return {a.data(), a.rows(), a.cols()}; }
  DenseSource<S> b_source() const { return {b.data(), b.rows(), b.cols()}; }
};

/// What a forward pass with an update gives: the output [out, T], and H = A X [r, T], which the backward pass needs.
template <class S>
struct LoraForward {
  Activation<S> y, h;
};

/// Gradients of the input [in, T] and of the factors A [r, in] and B [out, r].
template <class S>
struct LoraGradients {
  Activation<S> dx;
  Weight<S> da, db;
};

namespace detail {

template <class S>
void check_update(const char* operation, const LowRank<S>& update, Index in) {
  check<ShapeError>(update.a.rows() == update.b.cols() && update.a.cols() == in, operation, "A is [", update.a.rows(), ", ",
                    update.a.cols(), "], B is [", update.b.rows(), ", ", update.b.cols(), "], x has ", in,
                    " rows; A must be [rank, in], B [out, rank] and x [in, tokens]");
}

/// dA = U Xᵀ and dB = s G Hᵀ, and U = s Bᵀ G, which dX needs.
template <class S>
LoraGradients<S> factor_gradients(const LowRank<S>& update, const ActivationView<S>& x, const ActivationView<S>& h,
                                  const ActivationView<S>& g, Activation<S>& u, Compute compute) {
  check_update("lora_backward", update, x.rows());
  u = Activation<S>::Zero(update.b.cols(), g.cols());
  accumulate_transposed_product(u, update.b_source(), g, update.scale, compute);  // s Bᵀ G   [r, T]
  LoraGradients<S> gradients;
  gradients.da = Weight<S>::Zero(update.a.rows(), update.a.cols());
  gradients.db = Weight<S>::Zero(update.b.rows(), update.b.cols());
  accumulate_outer(gradients.da, u, x, S(1), compute);          // u Xᵀ     [r, in]
  accumulate_outer(gradients.db, g, h, update.scale, compute);  // s G Hᵀ   [out, r]
  return gradients;
}

}  // namespace detail

/// The update alone: H = A X, Y = s B H.
///
/// Cost: 2 r (in + out) T FLOPs. Throws ShapeError. Hu et al. 2021, eq. 3.
template <class S, MatrixLike X>
LoraForward<S> lora_update_forward(const LowRank<S>& update, const X& x, Compute compute = Compute::fp32) {
  detail::check_update("lora_update_forward", update, x.rows());
  auto h = multiply(update.a_source(), x, compute);  // [r, in] · [in, T]
  Activation<S> y = Activation<S>::Zero(update.b.rows(), x.cols());
  accumulate_product(y, update.b_source(), h, update.scale, compute);  // [out, r] · [r, T]
  return {std::move(y), std::move(h)};
}

/// Gradients of lora_update_forward for G = dL/dY [out, T]: with U = s Bᵀ G, dX = Aᵀ U, dA = U Xᵀ, dB = s G Hᵀ.
///
/// dX is empty unless asked for; it holds the update's part only. Throws ShapeError.
template <class S, MatrixLike X>
LoraGradients<S> lora_update_backward(const LowRank<S>& update, const X& x, const ActivationView<S>& h, const ActivationView<S>& g,
                                      bool need_dx = true, Compute compute = Compute::fp32) {
  Activation<S> u;
  auto gradients = detail::factor_gradients(update, x, h, g, u, compute);
  if (need_dx) gradients.dx = multiply_transposed(update.a_source(), u, compute);  // Aᵀ u   [in, T]
  return gradients;
}

/// Linear map with a low-rank update: Y = W X + s B (A X).
///
/// W [out, in] is any source and frozen; A [r, in], B [out, r]; X [in, T] gives Y [out, T]. Keeps H = A X [r, T] for the backward pass.
/// Cost: 2 out in T + 2 r (in + out) T FLOPs, one pass over W. Throws ShapeError. Hu et al. 2021, eq. 3.
template <Source Base, class S, MatrixLike X>
LoraForward<S> lora_forward(const Base& source, const LowRank<S>& update, const X& x, Compute compute = Compute::fp32) {
  detail::check_update("lora_forward", update, x.rows());
  auto h = multiply(update.a_source(), x, compute);  // [r, in] · [in, T]
  auto y =
      multiply_sum(source, x, scaled(update.b_source(), static_cast<double>(update.scale)), h, compute);  // [out, in + r] · [in + r, T]
  return {std::move(y), std::move(h)};
}

/// Gradients of lora_forward for G = dL/dY [out, T]: dX = Wᵀ G + s Aᵀ (Bᵀ G), dA = s (Bᵀ G) Xᵀ, dB = s G Hᵀ. W has none.
template <Source Base, class S, MatrixLike X>
LoraGradients<S> lora_backward(const Base& source, const LowRank<S>& update, const X& x, const ActivationView<S>& h,
                               const ActivationView<S>& g, Compute compute = Compute::fp32) {
  Activation<S> u;
  auto gradients = detail::factor_gradients(update, x, h, g, u, compute);
  gradients.dx = multiply_sum(transposed(source), g, transposed(update.a_source()), u, compute);  // Wᵀ G + Aᵀ u   [in, T]
  return gradients;
}

}  // namespace lowrank::inline LOWRANK_ABI
