#pragma once

/// Several layers of one x, each with an update or one a range of tokens, as a single operation.

#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/nn/adapted_linear.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A layer and its update, or null; or updates by ranges of tokens instead.
template <class S>
struct BasicLayerUse {
  BasicAdaptedLinear<S>* layer;
  BasicUpdateRef<S> update = {};
  std::vector<BasicUpdateRange<S>> ranges = {};
};
/// A layer in float and its update.
using LayerUse = BasicLayerUse<float>;

/// layer(x) of several layers for one x [in, T], recorded where a gradient is needed: one [out, T] a layer.
///
/// In float it reads x and the layers' memory once: for few tokens all weights in one pass, for many x packed once for all products,
/// forward and backward. Layers and updates must outlive the recording. Throws ShapeError, ValueError.
template <class S>
std::vector<Var<S>> forward_together(std::type_identity_t<std::span<const BasicLayerUse<S>>> uses, const Var<S>& x) {
  std::vector<detail::GroupLayer<S>> group;
  for (const BasicLayerUse<S>& use : uses) {
    if (use.layer->base.weight_trainable()) break;
    group.push_back(detail::group_layer(use.layer->base, use.update, std::span(use.ranges), x.cols(), x.tape() != nullptr));
  }
  if (group.size() == uses.size() && !group.empty())  // in training packed whatever the number of tokens: a batch keeps its bits
    return detail::run_group<S>(group, x, {.compute = group.front().view.compute, .streams_few = x.tape() == nullptr});
  std::vector<Var<S>> outputs;  // a weight that is trained itself
  for (const BasicLayerUse<S>& use : uses) outputs.push_back(detail::adapted(use.layer->base, use.update, std::span(use.ranges), x));
  return outputs;
}

}  // namespace lowrank::inline LOWRANK_ABI
