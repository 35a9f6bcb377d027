#pragma once

#include <span>
#include <utility>
#include <vector>

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

/// A layer and its update, or null.
struct LayerUse {
  const AdaptedLinear* layer;
  const LoraWeights<float>* update = nullptr;
};

/// layer(x) of several layers for one x, without a tape and for few tokens: [W₁; W₂ …; A₁; A₂ …] x in one pass over the memory, then B h.
///
/// X [in, T], T at most kernels::few_tokens is where it pays. Gives one [out, T] a layer. A and B are read in bfloat16 where the layer
/// computes in bf16 and the update was rounded for it. Throws ShapeError.
inline std::vector<Activation<float>> forward_together(std::span<const LayerUse> uses, const Activation<float>& x) {
  Index rows = 0, rank = 0;
  for (const LayerUse& use : uses) {
    detail::check_input("linear", x.rows(), x.cols(), use.layer->in_features());
    rows += use.layer->out_features();
    if (use.update) rank += use.update->rank();
  }
  kernels::Pieces down(rows + rank, x.rows()), up(rows, rank);  // [W; A] and B
  Index row = 0, h = 0;
  for (const LayerUse& use : uses) {
    use.layer->base.visit([&](const auto& layer) { down.add(layer.source(), row, 0); });
    if (use.update) {
      const LoraWeights<float>& u = *use.update;
      const Index out = use.layer->out_features();
      if (use.layer->base.compute() != Compute::fp32 && !u.rounded_a.empty()) {
        down.add(DenseSource<bfloat16>(u.rounded_a.data(), u.rank(), x.rows()), rows + h, 0);
        up.add(DenseSource<bfloat16>(u.rounded_b.data(), out, u.rank()), row, h, u.scale);
      } else {
        down.add(u.view().a_source(), rows + h, 0);
        up.add(u.view().b_source(), row, h, u.scale);
      }
      h += u.rank();
    }
    row += use.layer->out_features();
  }
  const Compute compute = uses.front().layer->base.compute();
  Activation<float> y(rows + rank, x.cols());
  const kernels::Columns input{x.data(), x.outerStride(), x.rows()};
  kernels::multiply(down, std::span(&input, 1), x.cols(), y.data(), y.outerStride(), {.compute = compute});
  const kernels::Columns hidden{y.data() + rows, y.outerStride(), rank};
  if (rank > 0) kernels::multiply(up, std::span(&hidden, 1), x.cols(), y.data(), y.outerStride(), {.compute = compute, .accumulate = true});
  std::vector<Activation<float>> outputs;
  row = 0;
  for (const LayerUse& use : uses) {
    outputs.emplace_back(y.middleRows(row, use.layer->out_features()));
    detail::add_bias(outputs.back(), use.layer->base.bias());
    row += use.layer->out_features();
  }
  return outputs;
}

}  // namespace lowrank::inline LOWRANK_ABI
