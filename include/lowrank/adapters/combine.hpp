#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <lowrank/adapters/prune.hpp>
#include <lowrank/adapters/recompress.hpp>

/// Several adapters as one, with a weight for each: D = Σ wᵢ Dᵢ of the updates Dᵢ = sᵢ Bᵢ Aᵢ, or a rule that prunes them first.

namespace lowrank::inline LOWRANK_ABI {

/// One input of combine(); the adapter must outlive the call.
struct WeightedAdapter {
  const Adapter* adapter;
  double weight = 1;
};

/// What is combined.
enum class CombineRule {
  concat,           ///< Σ wᵢ Dᵢ exactly, at the sum of the ranks
  linear,           ///< the best approximation of Σ wᵢ Dᵢ
  magnitude_prune,  ///< Σ wᵢ prune(Dᵢ), each with its largest elements only (keep_largest)
  ties,             ///< the same, but of each element the mean of those wᵢ Dᵢ that have the elected sign (merge_elected)
  dare_linear,      ///< Σ wᵢ drop(Dᵢ), elements dropped at random (keep_random)
  dare_ties,        ///< random dropping, then the election
};

/// On what the rule acts. PEFT's `add_weighted_adapter` has two more ways, which differ from the mathematics where it is not linear; they
/// are here so that its results can be had again.
enum class CombineForm {
  updates,       ///< on the updates Dᵢ, and wᵢ Dᵢ vote for signs; then the best approximation at the rank
  peft_updates,  ///< PEFT's svd and *_svd: the same, but Dᵢ vote whatever their weights
  peft_factors,  ///< PEFT's others: on A and on B apart with √|wᵢ sᵢ|, so that the result has cross terms Bᵢ Aⱼ; equal ranks only
};

/// What is done to the elements, and to which numbers.
struct CombineMethod {
  CombineRule rule = CombineRule::linear;
  CombineForm form = CombineForm::updates;

  /// Reads concat, linear, svd (= linear), ties, dare_linear, dare_ties, magnitude_prune, these with _svd (the same), and PEFT's cat,
  /// linear, svd, ties, ties_svd … as peft_cat, peft_linear …. Throws ValueError with all names.
  static CombineMethod named(std::string_view name);
};

/// How adapters become one.
struct CombineOptions {
  CombineMethod method = {};
  std::optional<RankChoice> rank = {};  ///< of the result; default: the largest of the inputs. Not for concat and peft_factors
  double density = 0.5;                 ///< share of the elements that pruning keeps
  SignVote vote = SignVote::total;
  std::uint64_t seed = 0;  ///< of random dropping
};

/// Combines adapters by a method; `fits` say for each layer how near the result is to what the method asks for (concat and the PEFT
/// factor forms: to Σ wᵢ Dᵢ).
///
/// Ranks may differ, weights may be negative, a layer that only some adapters have is combined from those. Element types are kept where all
/// agree, else float32. Cost a layer: linear O((out + in) R²); the pruning rules make the dense updates of one layer at a time. Throws
/// ShapeError for adapters of different models, ValueError naming what cannot be combined and why: updates that are no sum, biases under a
/// pruning rule, full copies of modules whose weights do not sum to 1.
FittedAdapter combine(std::span<const WeightedAdapter> adapters, const CombineOptions& options = {});

/// What training changed, as an adapter of rank 2r on the base as it was before an initialization moved part of it into the adapter
/// (PiSSA, OLoRA, LoRA-GA): s (B A - B₀ A₀) = s [B, -B₀] [A; A₀], exactly. Throws ValueError unless both have the same layers.
Adapter to_plain_adapter(const Adapter& initial, const Adapter& trained);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/combine.inl>
#endif
