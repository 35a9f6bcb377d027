#pragma once

#include <type_traits>
#include <utility>

#include <lowrank/autograd/broadcast.hpp>
#include <lowrank/autograd/tape.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
template <class S, class Device>
void check_same_shape(const char* operation, const Var<S, Device>& a, const Var<S, Device>& b) {
  check<ShapeError>(a.rows() == b.rows() && a.cols() == b.cols(), operation, "the operands are [", a.rows(), ", ", a.cols(), "] and [",
                    b.rows(), ", ", b.cols(), "] but must have one shape");
}
template <class S, class Device>
std::pair<Var<S>, Var<S>> of_common_shape(const char* operation, const Var<S, Device>& a, const Var<S, Device>& b) {
  const auto [rows, cols] = common_shape(operation, a, b);
  return {broadcast_to(a, rows, cols), broadcast_to(b, rows, cols)};
}
}  // namespace detail

/// X + Y of one shape; on the CPU a dimension of 1 is repeated to the other operand's. An operand that is moved in and held by nobody else
/// becomes the result. Keeps nothing. Throws ShapeError.
template <class S, class Device>
Var<S, Device> operator+(Var<S, Device> x, Var<S, Device> y) {
  if constexpr (std::is_same_v<Device, Cpu>) {
    if (!detail::have_same_shape(x, y)) {
      const auto [rows, cols] = detail::common_shape("add", x, y);
      return broadcast_to(std::move(x), rows, cols) + broadcast_to(std::move(y), rows, cols);
    }
  }
  detail::check_same_shape("add", x, y);
  const bool into_y = y.is_last_owner() && !x.is_last_owner();
  ArrayOn<S, Device> z = (into_y ? y : x).take();
  detail::accumulate(z, (into_y ? x : y).value());
  return record(std::move(z), {x, y}, [](auto& flow) {
    if (flow.needs(1)) flow.add(1, flow.gradient());
    flow.add(0, flow.take());
  });
}

/// X ∘ Y, element by element; dimensions of 1 are repeated. Keeps X and Y. Throws ShapeError.
template <class S, class Device>
Var<S> operator*(const Var<S, Device>& left, const Var<S, Device>& right) {
  const auto [x, y] = detail::of_common_shape("multiply", left, right);
  Activation<S> z = x.value().cwiseProduct(y.value());
  return record(std::move(z), {x, y}, [x = x.kept(), y = y.kept()](auto& flow) {
    flow.add(0, flow.gradient().cwiseProduct(*y.get()));
    flow.add(1, flow.gradient().cwiseProduct(*x.get()));
  });
}

/// X / Y, element by element; dimensions of 1 are repeated. Keeps X and Y. Throws ShapeError.
template <class S, class Device>
Var<S> operator/(const Var<S, Device>& left, const Var<S, Device>& right) {
  const auto [x, y] = detail::of_common_shape("divide", left, right);
  Activation<S> z = x.value().cwiseQuotient(y.value());
  return record(std::move(z), {x, y}, [x = x.kept(), y = y.kept()](auto& flow) {
    const auto divisor = y.get();
    flow.add(0, flow.gradient().cwiseQuotient(*divisor));
    if (flow.needs(1)) flow.add(1, (-flow.gradient().array() * x.get()->array() / divisor->array().square()).matrix());
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
Var<S> sum(const Var<S, Device>& input) {
  const Var<S> x = detail::on_cpu(input);
  Activation<S> total = Activation<S>::Constant(1, 1, x.value().sum());
  return record(std::move(total), {x}, [rows = x.rows(), cols = x.cols()](auto& flow) {
    flow.add(0, Activation<S>::Constant(rows, cols, flow.gradient()(0, 0)));
  });
}

/// −X. Keeps nothing.
template <class S, class Device>
Var<S, Device> operator-(Var<S, Device> x) {
  return scale(std::move(x), S(-1));
}

/// X − Y of shapes as for X + Y. Keeps nothing. Throws ShapeError.
template <class S, class Device>
Var<S, Device> operator-(Var<S, Device> x, Var<S, Device> y) {
  return std::move(x) + scale(std::move(y), S(-1));
}

/// With a number: X + number, number + X, X − number, number − X. They keep nothing.
template <class S, class Device>
Var<S> operator+(Var<S, Device> input, std::type_identity_t<S> number) {
  Var<S> x = detail::on_cpu(std::move(input));
  Activation<S> y = x.take();
  y.array() += number;
  return record(std::move(y), {x}, [](auto& flow) { flow.add(0, flow.take()); });
}
template <class S, class Device>
Var<S> operator+(std::type_identity_t<S> number, Var<S, Device> x) {
  return std::move(x) + number;
}
template <class S, class Device>
Var<S> operator-(Var<S, Device> x, std::type_identity_t<S> number) {
  return std::move(x) + -number;
}
template <class S, class Device>
Var<S> operator-(std::type_identity_t<S> number, Var<S, Device> x) {
  return -std::move(x) + number;
}

/// number · X and X · number: scale(X, number).
template <class S, class Device>
Var<S, Device> operator*(std::type_identity_t<S> number, Var<S, Device> x) {
  return scale(std::move(x), number);
}
template <class S, class Device>
Var<S, Device> operator*(Var<S, Device> x, std::type_identity_t<S> number) {
  return scale(std::move(x), number);
}

/// X / number. Keeps nothing.
template <class S, class Device>
Var<S> operator/(Var<S, Device> input, std::type_identity_t<S> number) {
  Var<S> x = detail::on_cpu(std::move(input));
  Activation<S> y = x.take();
  y /= number;
  return record(std::move(y), {x}, [number](auto& flow) {
    Activation<S> g = flow.take();
    g /= number;
    flow.add(0, std::move(g));
  });
}
/// number / X, element by element. Keeps X.
template <class S, class Device>
Var<S> operator/(std::type_identity_t<S> number, const Var<S, Device>& input) {
  const Var<S> x = detail::on_cpu(input);
  return record(Activation<S>((number / x.value().array()).matrix()), {x}, [x = x.kept(), number](auto& flow) {
    flow.add(0, (-number * flow.gradient().array() / x.get()->array().square()).matrix());
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
