#pragma once

// Solutions of chapter 2, with the reason in a line or two.

#include <cmath>
#include <Eigen/Core>

// 2a, derivation. The eigenvalues of Mᵀ M, rising, are all you get (rounding may have made the smallest ones negative).
// How far in the Frobenius norm is M from the nearest matrix of rank r?
// => They are the squares of the singular values; the r largest are at the end, and the rest adds up.
inline double distance_to_rank([[maybe_unused]] const Eigen::VectorXd& gram_eigenvalues, [[maybe_unused]] long r) {
  return std::sqrt(gram_eigenvalues.head(gram_eigenvalues.size() - r).cwiseMax(0).sum());
}

// 2b, prediction. M has the largest singular value s. What is that of the matrix of four copies, [M M; M M]?
// => With M v = s u the copies turn [v; v] / √2 into 2 s [u; u] / √2; every other direction comes out no longer.
inline double largest_of_four_copies([[maybe_unused]] double s) { return 2 * s; }
