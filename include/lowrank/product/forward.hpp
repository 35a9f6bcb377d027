#pragma once

/// The forward pass of layers with updates: Y = g ∘ (W P(X) + s B M A D(X) + s Δ X) + b, here and nowhere else.

#include <optional>
#include <span>
#include <vector>

#include <lowrank/product/group.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What the forward pass of a group gives, and what its backward pass needs of it.
template <class S>
struct GroupForward {
  std::vector<Activation<S>> y;         ///< [out, T] of each layer
  Activation<S> h;                      ///< H = A X of the joint updates, stacked [Σ r, T]
  std::vector<Activation<S>> apart;     ///< H of each part that stands apart [r, t]
  std::vector<Activation<S>> unscaled;  ///< what each gain multiplies [out, t], part by part, where it was asked for; see scaled_parts
};

/// How a group is run.
struct GroupOptions {
  Compute compute = Compute::fp32;
  bool is_recorded = false;     ///< a backward pass follows
  bool keeps_unscaled = false;  ///< keep what gains multiply; else the backward pass divides Y by them, so that none may be 0
  bool streams_few = true;      ///< few tokens read the weights as they lie; else they are packed as many are, which gives a batch the
                                ///< same bits for any number of tokens
};

/// Y of each layer of a group for one X [in, T].
///
/// Low-rank parts cost 2 r (in + out) T FLOPs beside the 2 out in T of each W, which is read once. Throws ShapeError. The formula of LoRA
/// is Hu et al. 2021, eq. 3.
template <class S>
GroupForward<S> group_forward(std::span<const LayerPlan<S>> layers, const ActivationView<S>& x, const GroupOptions& options);

namespace detail {

/// The parts of a group with a gain, in order: what GroupForward::unscaled counts.
template <class S>
std::vector<typename LayerGroup<S>::Apart> scaled_parts(std::span<const LayerPlan<S>> layers) {
  std::vector<typename LayerGroup<S>::Apart> parts;
  for (std::size_t i = 0; i < layers.size(); ++i)
    for (const auto& [plan, tokens] : layers[i].parts)
      if (!layers[i].plans[plan].gain.empty() && tokens.count > 0) parts.push_back({i, plan, tokens});
  return parts;
}

/// M H of the joint updates, stacked [Σ r', T]; H itself where no update has an M, else made in `room`.
template <class S>
const Activation<S>& times_middle(const LayerGroup<S>& group, const Activation<S>& h, Activation<S>& room);
/// M H of one plan, or H.
template <class S>
Activation<S> times_middle(const Plan<S>& plan, Activation<S> h, Compute compute);

/// Whether two parts of one layer share a token, so that they cannot be added at the same time.
template <class S>
bool have_common_tokens(std::span<const typename LayerGroup<S>::Apart> parts) {
  for (std::size_t i = 0; i < parts.size(); ++i)
    for (std::size_t k = i + 1; k < parts.size(); ++k)
      if (parts[i].tokens.begin < parts[k].tokens.begin + parts[k].tokens.count &&
          parts[k].tokens.begin < parts[i].tokens.begin + parts[i].tokens.count)
        return true;
  return false;
}

/// P(X) of a layer, whose plans may map some tokens each.
template <class S>
Activation<S> mapped_input(const LayerPlan<S>& layer, const ActivationView<S>& x);

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/product/forward.inl>
#endif
