#pragma once

/// Products of two Vars, by the library's own dense products. Cost: 2 m k n FLOPs forward, and as many a gradient.

#include <utility>

#include <lowrank/autograd/on_cpu.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/product/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// C = A B [m, n], for A [m, k] and B [k, n]; dA = G Bᵀ, dB = Aᵀ G. Keeps A and B. Throws ShapeError, as the next two.
template <class S, class Device>
Var<S> matmul(const Var<S, Device>& left, const Var<S, Device>& right) {
  const Var<S> a = detail::on_cpu(left), b = detail::on_cpu(right);
  return record(times<S>(a.value(), b.value()), {a, b}, [a = a.kept(), b = b.kept()](auto& flow) {
    if (flow.needs(0)) flow.add(0, times_transposed<S>(flow.gradient(), *b.get()));
    if (flow.needs(1)) flow.add(1, transposed_times<S>(*a.get(), flow.gradient()));
  });
}

/// C = Aᵀ B [m, n], for A [k, m] and B [k, n]; dA = B Gᵀ, dB = A G. Keeps A and B.
template <class S, class Device>
Var<S> transposed_matmul(const Var<S, Device>& left, const Var<S, Device>& right) {
  const Var<S> a = detail::on_cpu(left), b = detail::on_cpu(right);
  return record(transposed_times<S>(a.value(), b.value()), {a, b}, [a = a.kept(), b = b.kept()](auto& flow) {
    if (flow.needs(0)) flow.add(0, times_transposed<S>(*b.get(), flow.gradient()));
    if (flow.needs(1)) flow.add(1, times<S>(*a.get(), flow.gradient()));
  });
}

/// C = A Bᵀ [m, n], for A [m, k] and B [n, k]; dA = G B, dB = Gᵀ A. Keeps A and B.
template <class S, class Device>
Var<S> matmul_transposed(const Var<S, Device>& left, const Var<S, Device>& right) {
  const Var<S> a = detail::on_cpu(left), b = detail::on_cpu(right);
  return record(times_transposed<S>(a.value(), b.value()), {a, b}, [a = a.kept(), b = b.kept()](auto& flow) {
    if (flow.needs(0)) flow.add(0, times<S>(flow.gradient(), *b.get()));
    if (flow.needs(1)) flow.add(1, transposed_times<S>(flow.gradient(), *a.get()));
  });
}

}  // namespace lowrank::inline LOWRANK_ABI
