#pragma once

#include <utility>

#include <lowrank/nn/any_linear.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A linear layer of a model: a base in any format, run bare or with an update that the caller hands in, so that a swap of adapters is a
/// change of pointers.
template <class S>
class BasicAdaptedLinear {
 public:
  using Scalar = S;

  BasicAnyLinear<S> base;

  BasicAdaptedLinear() = default;
  BasicAdaptedLinear(BasicAnyLinear<S> layer) : base(std::move(layer)) {}

  Index in_features() const { return base.in_features(); }
  Index out_features() const { return base.out_features(); }

  /// base(x), plus s B (A x) of the update if there is one; recorded where a gradient is needed. The update must outlive the recording.
  Var<S> forward(const Var<S>& x, LoraWeights<S>* update = nullptr) { return update ? adapted_forward(base, *update, x) : base(x); }
  /// The same without a tape.
  Activation<S> forward(const Activation<S>& x, const LoraWeights<S>* update = nullptr) const {
    return update ? adapted_forward(base, *update, x) : base(x);
  }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    base.visit_parameters(visitor);
  }
};
/// The layer in float, as models hold it.
using AdaptedLinear = BasicAdaptedLinear<float>;

}  // namespace lowrank::inline LOWRANK_ABI
