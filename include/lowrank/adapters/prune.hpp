#pragma once

#include <span>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/random.hpp>

/// Pruning and sign election of task vectors, element by element.

namespace lowrank::inline LOWRANK_ABI {

/// How the sign of an element is elected among several updates: by their sum, or by how many have it.
enum class SignVote { total, frequency };

namespace detail {
void check_density(const char* operation, double density);
}  // namespace detail

/// Keeps the ⌊density · size⌋ elements of largest magnitude (of equals the first by rows) and sets the others to 0. Throws ValueError.
void keep_largest(Weight<float>& m, double density);

/// Keeps each element with probability density, divided by density so that the mean stays, and sets the others to 0. Throws ValueError.
/// Yu et al. 2023, "Language models are super Mario" (DARE).
void keep_random(Weight<float>& m, double density, const Random& random);

/// Mean of the elements that have the elected sign: Σ [sgn xᵢ = e] wᵢ τᵢ / max(1, number of them), e the sign of the vote, + where it is 0.
///
/// `voices` are the weights by which updates vote: the wᵢ themselves, or ones. xᵢ = voiceᵢ τᵢ. Yadav et al. 2023, "TIES-Merging", steps
/// 2 and 3.
Weight<float> merge_elected(std::span<const Weight<float>> tasks, std::span<const double> weights, std::span<const double> voices,
                            SignVote vote);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/prune.inl>
#endif
