#pragma once

#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant/matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Frozen layer Y = W X + b over a quantized weight; copies share the bytes. S is the scalar of activations.
template <class Format, class S = float>
class QuantizedLinear : public SourceLinear<QuantizedMatrix<Format>, S> {
 public:
  using SourceLinear<QuantizedMatrix<Format>, S>::SourceLinear;
};

template <class Format>
QuantizedLinear(QuantizedMatrix<Format>) -> QuantizedLinear<Format, float>;
template <class Format, class S>
QuantizedLinear(QuantizedMatrix<Format>, Vector<S>) -> QuantizedLinear<Format, S>;

}  // namespace lowrank::inline LOWRANK_ABI
