#pragma once

/// The backward pass of layers with updates, here and nowhere else. For G = dL/dY, with G' = g ∘ G and U = s Bᵀ G':
///
///   dX = Pᵀ Wᵀ G' + Dᵀ Aᵀ Mᵀ U + s Δᵀ G',   dA = Mᵀ U D(X)ᵀ,   dB = s G' (M H)ᵀ,   dM = U Hᵀ,   dm = Σ_t G ∘ V / n,
///   dΔ = s G' D(X)ᵀ
///
/// with H = A D(X) and V what g multiplies. W gets none.

#include <memory>
#include <span>
#include <vector>

#include <lowrank/product/forward.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Gradients of group_forward.
template <class S>
struct GroupBackward {
  Activation<S> dx;                                  ///< [in, T] of all layers together; empty unless asked for
  std::vector<Column<S>> bias;                       ///< of each layer's b
  std::vector<std::vector<PlanGradients<S>>> plans;  ///< of each plan of each layer
};

/// X is empty where nothing that needs it is trained; y holds each layer's result where a gain was not kept unscaled. Cost: about twice the
/// forward pass. Throws ShapeError.
template <class S>
GroupBackward<S> group_backward(std::span<const LayerPlan<S>> layers, const ActivationView<S>& x, const GroupForward<S>& forward,
                                const std::vector<std::shared_ptr<const Activation<S>>>& y, std::vector<Activation<S>> g, bool needs_dx,
                                const GroupOptions& options);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/product/backward.inl>
#endif
