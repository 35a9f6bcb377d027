#pragma once

// Exercises of chapter 7. Write the bodies; check with: sh examples/exercises/run.sh 07

#include <cmath>

// 7a, derivation. Each batch of b tokens brings another adapter of rank r for a weight [m, n]. Merging it costs 2 r m n operations, keeping
// it apart 2 r (m + n) a token. Is merging for this one batch fewer operations?
inline bool merging_is_cheaper([[maybe_unused]] long m, [[maybe_unused]] long n, [[maybe_unused]] long r, [[maybe_unused]] long b) {
  return false;  // your answer
}

// 7b, prediction. A merged weight is rounded to bfloat16, which has 8 significant bits. ‖rounded - w‖ / ‖w‖ for normal weights, up to 10 %?
inline double bfloat16_rounding_error() {
  return -1;  // your answer
}
