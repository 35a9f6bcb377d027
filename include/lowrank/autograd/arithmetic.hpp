#pragma once

#include <utility>

#include <lowrank/autograd/tape.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
template <class S, class Device>
void check_same_shape(const char* operation, const Var<S, Device>& a, const Var<S, Device>& b) {
  check<ShapeError>(a.rows() == b.rows() && a.cols() == b.cols(), operation, "the operands are [", a.rows(), ", ", a.cols(), "] and [",
                    b.rows(), ", ", b.cols(), "] but must have one shape");
}
}  // namespace detail

/// X + Y of one shape. An operand that is moved in and held by nobody else becomes the result. Keeps nothing. Throws ShapeError.
template <class S, class Device>
Var<S, Device> operator+(Var<S, Device> x, Var<S, Device> y) {
  detail::check_same_shape("add", x, y);
  const bool into_y = y.is_last_owner() && !x.is_last_owner();
  ArrayOn<S, Device> z = (into_y ? y : x).take();
  detail::accumulate(z, (into_y ? x : y).value());
  return record(std::move(z), {x, y}, [](auto& flow) {
    if (flow.needs(1)) flow.add(1, flow.gradient());
    flow.add(0, flow.take());
  });
}

/// X ∘ Y, element by element, of one shape. Throws ShapeError.
template <class S, class Device>
Var<S, Device> operator*(const Var<S, Device>& x, const Var<S, Device>& y) {
  detail::check_same_shape("multiply", x, y);
  ArrayOn<S, Device> z = x.value().cwiseProduct(y.value());
  return record(std::move(z), {x, y}, [x = x.kept(), y = y.kept()](auto& flow) {
    flow.add(0, flow.gradient().cwiseProduct(*y.get()));
    flow.add(1, flow.gradient().cwiseProduct(*x.get()));
  });
}

/// factor · X. Keeps nothing.
template <class S, class Device>
Var<S, Device> scale(Var<S, Device> x, std::type_identity_t<S> factor) {
  ArrayOn<S, Device> y = x.take();
  y *= factor;
  return record(std::move(y), {x}, [factor](auto& flow) {
    auto g = flow.take();
    g *= factor;
    flow.add(0, std::move(g));
  });
}

/// Σ over all numbers of X, a [1, 1]. Keeps nothing.
template <class S, class Device>
Var<S, Device> sum(const Var<S, Device>& x) {
  ArrayOn<S, Device> total = ArrayOn<S, Device>::Constant(1, 1, x.value().sum());
  return record(std::move(total), {x}, [rows = x.rows(), cols = x.cols()](auto& flow) {
    flow.add(0, ArrayOn<S, Device>::Constant(rows, cols, flow.gradient()(0, 0)));
  });
}

#if defined(LOWRANK_COMPILED)
extern template Var<float> operator+(Var<float>, Var<float>);
extern template Var<float> operator*(const Var<float>&, const Var<float>&);
extern template Var<float> scale(Var<float>, float);
extern template Var<float> sum(const Var<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/autograd/arithmetic.inl>
#endif
