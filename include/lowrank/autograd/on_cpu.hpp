#pragma once

#include <type_traits>
#include <utility>

#include <lowrank/autograd/var.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
/// The operand of an operation that no GPU kernel computes: misuse ends in this sentence.
template <class S, class Device>
Var<S> on_cpu(Var<S, Device> x) {
  static_assert(std::is_same_v<Device, Cpu>,
                "this operation on a Var runs on the CPU alone: a Var<float, Cuda> has +, - of one shape, scale, and the functions of "
                "cuda.hpp; compute the rest on a Var<S> of to_host(x.value())");
  if constexpr (std::is_same_v<Device, Cpu>) return x;
  return {};
}
}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI
