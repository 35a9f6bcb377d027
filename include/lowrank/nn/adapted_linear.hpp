#pragma once

#include <utility>

#include <lowrank/nn/any_linear.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A linear layer of a model: a base in any format, run bare or with an update that the caller hands in, so that a swap of adapters is a
/// change of pointers.
class AdaptedLinear {
 public:
  using Scalar = float;

  AnyLinear base;

  AdaptedLinear() = default;
  AdaptedLinear(AnyLinear layer) : base(std::move(layer)) {}

  Index in_features() const { return base.in_features(); }
  Index out_features() const { return base.out_features(); }

  /// base(x), plus s B (A x) of the update if there is one; recorded where a gradient is needed. The update must outlive the recording.
  Var<float> forward(const Var<float>& x, LoraWeights<float>* update = nullptr) {
    return update ? adapted_forward(base, *update, x) : base(x);
  }
  /// The same without a tape.
  Activation<float> forward(const Activation<float>& x, const LoraWeights<float>* update = nullptr) const {
    return update ? adapted_forward(base, *update, x) : base(x);
  }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    base.visit_parameters(visitor);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
