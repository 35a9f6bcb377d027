#pragma once

/// Functions of each number: one mechanism, a line a function; and choices between the numbers of two arrays.

#include <cmath>
#include <utility>

#include <lowrank/autograd/arithmetic.hpp>
#include <lowrank/ops/activation.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
/// Y = f(X) of Eigen arrays, dX = G ∘ f′(X). Keeps X.
template <class S, class Device, class Function, class Derivative>
Var<S> map_numbers(const Var<S, Device>& input, const Function& f, const Derivative& derivative) {
  const Var<S> x = on_cpu(input);
  auto y = map_tokens(x.value(), [&](const S* in, S* out, Index n) { array(out, n) = f(array(in, n)); });
  return record(std::move(y), {x}, [x = x.kept(), derivative](auto& flow) {
    flow.add(0, map_tokens("backward", *x.get(), flow.gradient(),
                           [&](const S* in, const S* g, S* dx, Index n) { array(dx, n) = array(g, n) * derivative(array(in, n)); }));
  });
}
}  // namespace detail

/// e^x. This and the functions below act on each number and keep X.
template <class S, class Device>
Var<S> exp(const Var<S, Device>& x) {
  return detail::map_numbers(
      x, [](const auto& v) { return v.exp(); }, [](const auto& v) { return v.exp(); });
}
/// log x, to base e; −∞ at 0, NaN below.
template <class S, class Device>
Var<S> log(const Var<S, Device>& x) {
  return detail::map_numbers(
      x, [](const auto& v) { return v.log(); }, [](const auto& v) { return v.inverse(); });
}
/// √x; its derivative at 0 is ∞.
template <class S, class Device>
Var<S> sqrt(const Var<S, Device>& x) {
  return detail::map_numbers(
      x, [](const auto& v) { return v.sqrt(); }, [](const auto& v) { return S(0.5) / v.sqrt(); });
}
/// x².
template <class S, class Device>
Var<S> square(const Var<S, Device>& x) {
  return detail::map_numbers(
      x, [](const auto& v) { return v.square(); }, [](const auto& v) { return S(2) * v; });
}
/// x to the power of a number; its derivative is 0 everywhere when that is 0.
template <class S, class Device>
Var<S> pow(const Var<S, Device>& x, std::type_identity_t<S> exponent) {
  const S lower = exponent == S(0) ? S(0) : exponent - S(1);
  return detail::map_numbers(
      x, [=](const auto& v) { return v.pow(exponent); }, [=](const auto& v) { return exponent * v.pow(lower); });
}
/// |x|; its derivative at 0 is 0.
template <class S, class Device>
Var<S> abs(const Var<S, Device>& x) {
  return detail::map_numbers(
      x, [](const auto& v) { return v.abs(); }, [](const auto& v) { return v.sign(); });
}
/// Hyperbolic tangent.
template <class S, class Device>
Var<S> tanh(const Var<S, Device>& x) {
  return detail::map_numbers(
      x, [](const auto& v) { return v.tanh(); }, [](const auto& v) { return S(1) - v.tanh().square(); });
}
/// σ(x) = 1 / (1 + e⁻ˣ).
template <class S, class Device>
Var<S> sigmoid(const Var<S, Device>& x) {
  return detail::map_numbers(
      x, [](const auto& v) { return detail::sigmoid(v); }, [](const auto& v) { return detail::sigmoid(v) * (S(1) - detail::sigmoid(v)); });
}

/// The larger of x and y, element by element; dimensions of 1 are repeated. NaN where one of them is. Equal ones share the gradient
/// (torch.maximum). Keeps X and Y. Throws ShapeError.
template <class S, class Device>
Var<S> max(const Var<S, Device>& left, const Var<S, Device>& right) {
  const auto [x, y] = detail::of_common_shape("max", left, right);
  const auto larger = [](S a, S b) { return a >= b || is_nan(a) ? a : b; };
  const auto backward = [x = x.kept(), y = y.kept()](auto& flow) {
    const auto share = [](S a, S b) { return a > b ? S(1) : a == b ? S(0.5) : S(0); };
    const auto a = x.get(), b = y.get();
    flow.add(0, flow.gradient().cwiseProduct(a->binaryExpr(*b, share)));
    flow.add(1, flow.gradient().cwiseProduct(b->binaryExpr(*a, share)));
  };
  return record(Activation<S>(x.value().binaryExpr(y.value(), larger)), {x, y}, backward);
}

/// A choice a number, [rows, cols], such as `x.value().array() > 0`.
using BoolArray = Eigen::Array<bool, Dynamic, Dynamic>;

/// a where the mask says so, else b, in the mask's shape; dimensions of 1 of a and b are repeated. Keeps the mask. Throws ShapeError.
template <class S, class Device>
Var<S> where(const std::type_identity_t<BoolArray>& mask, const Var<S, Device>& a, const Var<S, Device>& b) {
  const Var<S> x = broadcast_to(a, mask.rows(), mask.cols()), y = broadcast_to(b, mask.rows(), mask.cols());
  return record(Activation<S>(mask.select(x.value().array(), y.value().array()).matrix()), {x, y}, [mask](auto& flow) {
    const auto g = flow.gradient().array();
    flow.add(0, mask.select(g, S(0)).matrix());
    flow.add(1, mask.select(S(0), g).matrix());
  });
}
/// The same with a number in place of one array: where(mask, x, −∞) before a softmax leaves out what the mask does not name.
template <class S, class Device>
Var<S> where(const std::type_identity_t<BoolArray>& mask, const Var<S, Device>& a, std::type_identity_t<S> b) {
  return where(mask, a, Var<S, Device>(ArrayOn<S, Device>::Constant(1, 1, b)));
}
template <class S, class Device>
Var<S> where(const std::type_identity_t<BoolArray>& mask, std::type_identity_t<S> a, const Var<S, Device>& b) {
  return where(mask, Var<S, Device>(ArrayOn<S, Device>::Constant(1, 1, a)), b);
}

}  // namespace lowrank::inline LOWRANK_ABI
