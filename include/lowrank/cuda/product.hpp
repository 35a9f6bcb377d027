#pragma once

/// The forward and the backward pass of a layer with updates on a GPU, here and nowhere else. For G = dL/dY and U = s Bᵀ G:
///
///   Y = W X + s B (A X) + b,   dX = Wᵀ G + Aᵀ U,   dA = U Xᵀ,   dB = s G (A X)ᵀ
///
/// It runs the plans of product/plan.hpp, each token with its own updates. Where a plan has a middle M, M A takes the place of A. Gradients
/// are added to those of parameters on the device.

#include <memory>
#include <optional>
#include <vector>

#include <lowrank/autograd/tape.hpp>
#include <lowrank/cuda/ops.hpp>
#include <lowrank/cuda/rounded.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/product/group.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// One layer of a group in one pass, and what its backward pass reads.
class LayerPass {
 public:
  /// The layer must outlive this, and the updates that the plans are of. Throws ValueError for what a GPU does not run.
  LayerPass(AnyLinear& layer, const LayerGroup<float>& group, std::size_t number);
  LayerPass(const LayerPass&) = delete;
  LayerPass& operator=(const LayerPass&) = delete;

  bool trains() const;
  /// Numbers behind each token of X that A X of this layer takes.
  Index room() const { return whole_ ? Rounded::room_of(whole_->plan->b.cols) : 0; }
  /// Y [out, T] of X, rounded once for all layers of the group; A X comes to lie in its rows, `place` numbers into their room.
  DeviceActivation forward(const std::shared_ptr<const Rounded>& x, Index place);
  void backward(GradientFlow<float, Cuda>& flow) const;

 private:
  /// One update of some tokens: M A and s B as products read them.
  struct Part {
    const Plan<float>* plan;
    TokenRange tokens;
    Rounded a, b;
  };
  /// Updates whose tokens do not overlap: a product of all is one launch, tile by tile.
  struct Round {
    std::vector<Part> parts;
    std::vector<TokenTile> tiles;
    Index rank = 0;  // the largest
    Rounded h;       // A X, each token's own
  };

  /// M A, each row a column [in].
  DeviceActivation times_middle(const Plan<float>& plan) const;
  /// Adds to the gradients of A and M for that of M A.
  void add_middle_gradients(const Plan<float>& plan, const DeviceActivation& dma) const;
  /// C += scale · L Rᵀ over the tokens of a part.
  void add_outer_of(TokenRange tokens, const Rounded& left, Index rows, const Rounded& right, Index cols, float scale, float* c) const;

  Part part_of(const Plan<float>& plan, TokenRange tokens) const;
  void add_to_rounds(Part part);
  /// y = or += factor · h of each token of a round, or transposed.
  void multiply_tiles(const Round& round, Rounded Part::*factor, bool transposed, const Rounded& h, DeviceActivation& y,
                      bool accumulate) const;
  void add_bias(const Part& part, DeviceActivation& y) const;
  void add_gradients(const Part& part, const DeviceActivation& g, const Rounded& g16, const Rounded& u, const Rounded& h) const;
  void add_input_gradient(GradientFlow<float, Cuda>& flow, const Rounded& g16, const Rounded* u) const;

  Machine& machine_;
  AnyLinear& layer_;
  const ChunkedView& w_;
  Index tokens_;
  std::vector<Plan<float>> plans_;
  std::optional<Part> whole_;         // one update of all tokens goes into the layer's own product
  std::vector<Round> rounds_;         // all others
  Rounded h_;                         // A X of whole_
  std::shared_ptr<const Rounded> x_;  // where an A is trained
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/product.inl>
#endif
