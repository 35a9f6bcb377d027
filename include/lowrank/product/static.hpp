#pragma once

/// The low-rank layer with sizes known to the compiler: plain Eigen on static matrices, which allocates nothing.

#include <lowrank/core/matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Y = W X + b + s B (A X), plus s times a bias of B. Base is a layer of static sizes, Update holds a, b, scale and bias.
template <class Base, class Update, class X>
auto static_forward(const Base& base, const Update& update, const X& x) {
  auto y = base(x);                                    // W X + b
  const auto h = (update.a.value * x).eval();          // [r, in] · [in, T]
  y.noalias() += update.scale * (update.b.value * h);  // [out, r] · [r, T]
  if (!update.bias.empty()) y.colwise() += update.scale * update.bias.value.col(0);
  return y;
}

/// Adds dA = U Xᵀ and dB = s G (A X)ᵀ to the gradients, U = s Bᵀ G, and gives dX = Wᵀ G + Aᵀ U.
template <class Base, class Update, class X, class G>
auto static_backward(const Base& base, Update& update, const X& x, const G& g) {
  const auto h = (update.a.value * x).eval();                               // [r, in] · [in, T]
  const auto u = (update.scale * (update.b.value.transpose() * g)).eval();  // [r, out] · [out, T]
  if (update.a.needs_grad()) update.a.gradient().noalias() += u * x.transpose();
  if (update.b.needs_grad()) update.b.gradient().noalias() += update.scale * (g * h.transpose());
  auto dx = base.transposed_product(g);
  dx.noalias() += update.a.value.transpose() * u;
  return dx;
}

}  // namespace lowrank::inline LOWRANK_ABI
