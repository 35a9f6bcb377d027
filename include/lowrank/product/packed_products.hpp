#pragma once

/// Products of a group in float. For many tokens X is packed once for all products of the forward pass, and each G once for those of the
/// backward pass; for few tokens all weights are read once, in the order in which they lie.

#include <vector>

#include <lowrank/kernels/driver/packed.hpp>
#include <lowrank/product/group.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// [W | s B] · [X ; H] for many tokens: H is packed behind X. Same interface as PlainProducts, as the next.
class PackedProducts {
 public:
  PackedProducts(const LayerGroup<float>& group, const ActivationView<float>& x);
  Activation<float> times_a() const;
  void times_w_and_b(const Activation<float>& h, std::vector<Activation<float>>& y);

 private:
  const LayerGroup<float>& group_;
  Index grain_, behind_;  // parts begin at its multiples; where H begins
  kernels::Packed packed_;
};

/// Σ [Wᵀ | Aᵀ] · [G ; U] for many tokens: all G and U below each other.
class PackedGradients {
 public:
  explicit PackedGradients(const LayerGroup<float>& group);
  Activation<float> times_b_transposed(const std::vector<Activation<float>>& g);
  Activation<float> input_gradient(const std::vector<Activation<float>>& g, const Activation<float>& u);

 private:
  /// Where each G, and each update's U, begins in the depth.
  struct Places {
    std::vector<Index> g, u;
    Index depth = 0;
    Places(const LayerGroup<float>& group, Index grain);
  };
  const LayerGroup<float>& group_;
  Places places_;
  kernels::Packed packed_;
};

/// For few tokens without a tape: [A₁ ; A₂ … ; W₁ ; W₂ …] X and B H in one pass over the memory, unless M stands between A and B. A and B
/// are read in bfloat16 where the group does not compute in fp32 and they are there rounded.
class FewProducts {
 public:
  FewProducts(const LayerGroup<float>& group, const ActivationView<float>& x);
  Activation<float> times_a() const;
  void times_w_and_b(const Activation<float>& h, std::vector<Activation<float>>& y);

 private:
  /// All s B, each beside its own part of H.
  kernels::Pieces up() const;

  const LayerGroup<float>& group_;
  Index rows_ = 0;  // of all W
  bool has_middle_ = false;
  Activation<float> hy_;  // H above Y
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/product/packed_products.inl>
#endif
