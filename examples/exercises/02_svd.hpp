#pragma once

// Exercises of chapter 2. Write the bodies; check with: sh examples/exercises/run.sh 02

#include <cmath>
#include <Eigen/Core>

// 2a, derivation. The eigenvalues of Mᵀ M, rising, are all you get (rounding may have made the smallest ones negative).
// How far in the Frobenius norm is M from the nearest matrix of rank r?
inline double distance_to_rank([[maybe_unused]] const Eigen::VectorXd& gram_eigenvalues, [[maybe_unused]] long r) {
  return -1;  // your answer
}

// 2b, prediction. M has the largest singular value s. What is that of the matrix of four copies, [M M; M M]?
inline double largest_of_four_copies([[maybe_unused]] double s) {
  return -1;  // your answer
}
