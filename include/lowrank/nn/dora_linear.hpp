#pragma once

#include <string_view>
#include <utility>

#include <lowrank/nn/adapted.hpp>
#include <lowrank/update/dora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Any frozen layer with a DoRA update: Y = (m / ‖V‖) ∘ (V X) + b by rows, V = W + s B A, m [out] trained.
///
///   DoraLinear layer{QuantizedLinear{q}, {.rank = 16, .alpha = 32}};
/// Begins as its base. ‖V‖ is a constant in the backward pass and costs a pass over W with r tokens for each forward pass; for inference
/// prepare() computes it once. Liu et al. 2024.
template <LinearLayer Base, int Rank = Dynamic>
class DoraLinear : public Adapted<Base, DoraWeights<typename Base::Scalar, Rank>> {
  using Parent = Adapted<Base, DoraWeights<typename Base::Scalar, Rank>>;

 public:
  using typename Parent::Scalar;
  static constexpr std::string_view kind = "DoraLinear";

  explicit DoraLinear(Base base, const LoraOptions& options = {})
      : Parent(std::move(base), {make_lora<Scalar, Rank>(base.in_features(), base.out_features(), options)}) {
    this->update().begin(detail::layer_view(this->base()));
  }

  Parameter<Scalar>& magnitude() { return this->update().magnitude; }
  const Parameter<Scalar>& magnitude() const { return this->update().magnitude; }
  /// Computes m / ‖V‖ once, for inference with weights as they are now.
  void prepare() { this->update().prepare(detail::layer_view(this->base())); }
};

template <class Base>
DoraLinear(Base) -> DoraLinear<Base>;
template <class Base>
DoraLinear(Base, LoraOptions) -> DoraLinear<Base>;

}  // namespace lowrank::inline LOWRANK_ABI
