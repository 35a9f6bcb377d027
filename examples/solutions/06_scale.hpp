#pragma once

// Solutions of chapter 6, with the reason in a line or two.

#include <cmath>

// 6a, derivation. PEFT's "gaussian" beginning draws A from N(0, 1/r²), not from a distribution that forgets r. Which scale s(r) keeps the
// change of the output in the first step of gradient descent independent of r? Let s(1) = alpha.
// => The change is s² (A x)ᵀ(A x) times the gradient; r entries of variance ‖x‖²/r² sum to ‖x‖²/r, so s² / r must not change.
inline double stable_scale_for_gaussian([[maybe_unused]] double alpha, [[maybe_unused]] long r) {
  return alpha * std::sqrt(static_cast<double>(r));
}

// 6b, prediction. A recipe says LoRA with alpha and r. Which alpha makes rsLoRA at the same rank the same layer?
// => alpha' / √r = alpha / r.
inline double rslora_alpha([[maybe_unused]] double alpha, [[maybe_unused]] long r) { return alpha / std::sqrt(static_cast<double>(r)); }
