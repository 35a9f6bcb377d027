#pragma once

/// The low-rank layer with sizes known to the compiler: plain Eigen on static matrices, which allocates nothing.

#include <type_traits>

#include <lowrank/core/matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
constexpr bool fits_size(int a, int b) { return a == b || a == Dynamic || b == Dynamic; }
/// Whether X [in, T] and G [out, T] are, by their types, those of B A for A [r, in], B [out, r].
template <class A, class B, class X, class G>
constexpr bool fits_update() {
  if (!std::is_same_v<typename X::Scalar, typename A::Scalar> || !std::is_same_v<typename G::Scalar, typename A::Scalar>) return false;
  return fits_size(X::RowsAtCompileTime, A::ColsAtCompileTime) && fits_size(G::RowsAtCompileTime, B::RowsAtCompileTime) &&
         fits_size(X::ColsAtCompileTime, G::ColsAtCompileTime);
}
}  // namespace detail

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
  constexpr bool fits = detail::fits_update<decltype(update.a.value), decltype(update.b.value), X, G>();
  static_assert(fits, "backward(x, g): x must be [in, tokens] and g [out, tokens], with the layer's sizes and scalar");
  if constexpr (!fits) {
    return Activation<typename Update::Scalar, decltype(update.a.value)::ColsAtCompileTime, X::ColsAtCompileTime>();
  } else {
    const auto h = (update.a.value * x).eval();                               // [r, in] · [in, T]
    const auto u = (update.scale * (update.b.value.transpose() * g)).eval();  // [r, out] · [out, T]
    if (update.a.needs_grad()) update.a.gradient().noalias() += u * x.transpose();
    if (update.b.needs_grad()) update.b.gradient().noalias() += update.scale * (g * h.transpose());
    auto dx = base.transposed_product(g);
    dx.noalias() += update.a.value.transpose() * u;
    return dx;
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
