#pragma once

// Exercises of chapter 8. Write the bodies; check with: sh examples/exercises/run.sh 08

#include <cmath>

// 8a, derivation. Bits a weight: a code of 4 bits, for each block a scale of `scale_bits`, and, if `nested` is not 0, one more fp32 number
// for each `nested` scales.
inline double bits_per_weight([[maybe_unused]] int block, [[maybe_unused]] int scale_bits, [[maybe_unused]] int nested) {
  return -1;  // your answer
}

// 8b, prediction. Weights uniform in [-1, 1], sixteen even values from -absmax to absmax, blocks of B. The root mean square error, to 3 %?
inline double even_rmse([[maybe_unused]] int block) {
  return -1;  // your answer
}
