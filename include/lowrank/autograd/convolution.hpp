#pragma once

#include <lowrank/autograd/on_cpu.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/ops/convolution.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// im2col_forward: patches of images as columns. Keeps X only if the result is kept, to cut it again.
template <class S, class Device>
Var<S> im2col(const Var<S, Device>& input, const Conv2dOptions& options) {
  const Var<S> x = detail::on_cpu(input);
  const auto backward = [options](auto& flow) { flow.add(0, im2col_backward(flow.gradient(), options)); };
  return record(im2col_forward(x.value(), options), {x}, backward).restored_by([kept = x.kept(), options] {
    return im2col_forward(*kept.get(), options);
  });
}

/// to_images_forward: a product's columns as images of that many positions. Keeps nothing.
template <class S, class Device>
Var<S> to_images(const Var<S, Device>& input, Index positions) {
  const Var<S> y = detail::on_cpu(input);
  return record(to_images_forward(y.value(), positions), {y},
                [positions](auto& flow) { flow.add(0, to_images_backward(flow.gradient(), positions)); });
}

}  // namespace lowrank::inline LOWRANK_ABI
