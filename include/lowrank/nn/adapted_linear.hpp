#pragma once

#include <string>
#include <utility>

#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/recorded_group.hpp>

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

  /// base(x), changed by the update if there is one; recorded where a gradient is needed. The update must outlive the recording.
  Var<S> forward(const Var<S>& x, BasicUpdateRef<S> update = {}) & { return update ? detail::adapted(base, update, {}, x) : base(x); }
  auto forward(const Var<S>&, BasicUpdateRef<S> = {}) && = delete;  // the recording refers to the layer: give the layer a name first
  /// The same without a tape.
  Activation<S> forward(const Activation<S>& x, BasicUpdateRef<S> update = {}) const {
    return update ? detail::adapted(base, update, x) : base(x);
  }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    base.visit_parameters(visitor);
  }
};
/// As its base.
template <class S>
std::string describe(const BasicAdaptedLinear<S>& layer) {
  return describe(layer.base);
}

/// The layer in float, as models hold it.
using AdaptedLinear = BasicAdaptedLinear<float>;

}  // namespace lowrank::inline LOWRANK_ABI
