#pragma once

// Solutions of chapter 4, with the reason in a line or two.

#include <cmath>
#include <Eigen/Core>

// 4a, derivation. y = x / ‖x‖ and G = dL/dy. dL/dx?
// => A change along x leaves y where it is; the rest is divided by the length: (g - y (y·g)) / ‖x‖.
inline Eigen::VectorXd normalize_backward(const Eigen::VectorXd& x, [[maybe_unused]] const Eigen::VectorXd& g) {
  const Eigen::VectorXd y = x.normalized();
  return (g - y * y.dot(g)) / x.norm();
}

// 4b, prediction. A chain of L layers whose values are all of one size. With a checkpoint every k layers, the backward pass holds the
// L / k checkpoints and the k values of one stretch. Which k holds the fewest, for L a square?
// => L / k + k is least where its derivative 1 - L / k² is zero (Chen et al. 2016).
inline long best_stretch([[maybe_unused]] long layers) { return std::lround(std::sqrt(static_cast<double>(layers))); }
