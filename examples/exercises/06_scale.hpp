#pragma once

// Exercises of chapter 6. Write the bodies; check with: sh examples/exercises/run.sh 06

#include <cmath>

// 6a, derivation. PEFT's "gaussian" beginning draws A from N(0, 1/r²), not from a distribution that forgets r. Which scale s(r) keeps the
// change of the output in the first step of gradient descent independent of r? Let s(1) = alpha.
inline double stable_scale_for_gaussian([[maybe_unused]] double alpha, [[maybe_unused]] long r) {
  return -1;  // your answer
}

// 6b, prediction. A recipe says LoRA with alpha and r. Which alpha makes rsLoRA at the same rank the same layer?
inline double rslora_alpha([[maybe_unused]] double alpha, [[maybe_unused]] long r) {
  return -1;  // your answer
}
