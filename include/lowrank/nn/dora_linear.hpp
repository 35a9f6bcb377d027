#pragma once

#include <utility>

#include <lowrank/nn/lora_linear.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Any frozen layer with a DoRA update: Y = (m / ‖V‖) ∘ (V X) + b by rows, V = W + s B A, m [out] trained.
///
///   DoraLinear layer{QuantizedLinear{q}, {.rank = 16, .alpha = 32}};
/// Begins as its base. ‖V‖ is a constant in the backward pass and costs a pass over W with r tokens for each forward pass; for inference
/// prepare_dora(layer.base(), layer.update()) computes it once. Liu et al. 2024.
template <LinearLayer Base, int Rank = Dynamic>
class DoraLinear : public LoraLinear<Base, Rank> {
 public:
  explicit DoraLinear(Base base, LoraOptions options = {}) : LoraLinear<Base, Rank>(std::move(base), with_dora(std::move(options))) {}

 private:
  static LoraOptions with_dora(LoraOptions options) {
    options.use_dora = true;
    return options;
  }
};

template <class Base>
DoraLinear(Base) -> DoraLinear<Base>;
template <class Base>
DoraLinear(Base, LoraOptions) -> DoraLinear<Base>;

}  // namespace lowrank::inline LOWRANK_ABI
