#pragma once

#include <utility>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/on_cpu.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// layer_norm_forward with a weight [n] and a bias [n] (or an empty one, for none) that may be trainable: PyTorch's layer_norm over the
/// features of each token. Keeps X; the result is computed again where it is needed. Throws ShapeError.
template <class S, class Device, int Rows, int Cols, int BiasRows, int BiasCols>
Var<S> layer_norm(const Var<S, Device>& input, Parameter<S, Rows, Cols>& weight, Parameter<S, BiasRows, BiasCols>& bias,
                  std::type_identity_t<S> epsilon = S(1e-5)) {
  const Var<S> x = detail::on_cpu(input);
  const Kept<S> kept = x.kept();
  const auto forward = [w = Handle(weight), b = Handle(bias), epsilon](const Activation<S>& in) {
    return layer_norm_forward(in, detail::vector_of(*w), detail::vector_of(*b), epsilon);
  };
  const auto backward = [kept, w = Handle(weight), b = Handle(bias), epsilon](auto& flow) {
    const auto x_kept = kept.get();
    auto gradients = layer_norm_backward(*x_kept, detail::vector_of(*w), epsilon, flow.gradient(), w->needs_grad(), b->needs_grad());
    if (w->needs_grad()) detail::gradient_vector(*w) += gradients.dweight;
    if (b->needs_grad()) detail::gradient_vector(*b) += gradients.dbias;
    flow.add(0, std::move(gradients.dx));
  };
  return record(forward(x.value()), {x}, backward, weight.needs_grad() || bias.needs_grad()).restored_by([kept, forward] {
    return forward(*kept.get());
  });
}

}  // namespace lowrank::inline LOWRANK_ABI
