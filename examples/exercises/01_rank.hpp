#pragma once

// Exercises of chapter 1. Write the bodies; check with: sh examples/exercises/run.sh 01

#include <algorithm>
#include <cmath>

// 1a, derivation. The largest rank r for which two factors [m, r] and [r, n] hold fewer numbers than the matrix [m, n]; 0 if none does.
inline long largest_saving_rank([[maybe_unused]] long m, [[maybe_unused]] long n) {
  return -1;  // your answer
}

// 1b, prediction. The rank of the element-wise product of two matrices [m, n] of ranks p and q whose factors are random.
// Think of the product of two outer products before you measure.
inline long rank_of_elementwise_product([[maybe_unused]] long p, [[maybe_unused]] long q, [[maybe_unused]] long m,
                                        [[maybe_unused]] long n) {
  return -1;  // your answer
}
